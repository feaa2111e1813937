//! How do the datapath's tables look as text?

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use abi::DropReason;
use abi::conntrack::{self, CtEntry, CtKey};
use abi::endpoint::Endpoint;
use abi::ipcache::RemoteEndpoint;
use abi::policy::{self, VerdictKey};
use abi::service::Service;
use anyhow::{Context, Result};
use bpf::{Maps, SlotDump};

use crate::tabwriter::align;

/// The maps of this node, for reading.
pub fn open() -> Result<Maps> {
    let root = std::env::var_os("TC_BPF_MNT").map_or_else(|| PathBuf::from("/sys/fs/bpf"), PathBuf::from);
    Maps::open_pinned(&root.join("tc/globals")).context("open the datapath's maps (is the agent on this node?)")
}

/// Two columns, sorted by the first; a key with several values has a line for each.
pub fn two_columns(titles: (&str, &str), rows: &BTreeMap<String, Vec<String>>) -> String {
    let mut text = format!("{}\t{}\t\n", titles.0, titles.1);
    for (key, values) in rows {
        for (at, value) in values.iter().enumerate() {
            let _ = writeln!(text, "{}\t{value}\t", if at == 0 { key } else { "" });
        }
    }
    align(&text, 5, 3)
}

/// `bpf ipcache list`.
pub fn ipcache(maps: &Maps) -> Result<BTreeMap<String, Vec<String>>> {
    let four = maps.ipcache4.entries()?.into_iter().map(|(k, v)| (IpAddr::V4(k.addr.into()), k.prefix_len, v));
    let six = maps.ipcache6.entries()?.into_iter().map(|(k, v)| (IpAddr::V6(k.addr.into()), k.prefix_len, v));
    Ok(four.chain(six).map(|(address, length, value)| (format!("{address}/{length}"), vec![remote(&value)])).collect())
}

fn remote(value: &RemoteEndpoint) -> String {
    let tunnel = std::net::Ipv4Addr::from(value.tunnel_endpoint);
    let flags = if value.flags & abi::ipcache::FLAG_SKIP_TUNNEL != 0 { "skiptunnel" } else { "<none>" };
    format!("identity={} encryptkey=0 tunnelendpoint={tunnel} flags={flags}", value.identity)
}

/// `bpf endpoint list`.
pub fn endpoints(maps: &Maps) -> Result<BTreeMap<String, Vec<String>>> {
    let four = maps.lxc4.entries()?.into_iter().map(|(k, v)| (IpAddr::V4(k.into()), v));
    let six = maps.lxc6.entries()?.into_iter().map(|(k, v)| (IpAddr::V6(k.into()), v));
    Ok(four.chain(six).map(|(address, value)| (format!("{address}:0"), vec![endpoint(&value)])).collect())
}

fn endpoint(value: &Endpoint) -> String {
    if value.flags & abi::endpoint::FLAG_HOST != 0 {
        return "(localhost)".into();
    }
    format!(
        "id={:<5} sec_id={:<5} flags=0x{:04x} ifindex={:<3} mac={} nodemac={} parent_ifindex=0",
        value.id, value.identity, value.flags, value.ifindex, value.mac, value.node_mac
    )
}

/// `bpf lb list`.
pub fn services(maps: &Maps) -> Result<BTreeMap<String, Vec<String>>> {
    let mut backends = BTreeMap::new();
    for (id, b) in maps.backends4.entries()? {
        backends.insert((true, id), at(b.addr.octets().into(), b.port, b.protocol));
    }
    for (id, b) in maps.backends6.entries()? {
        backends.insert((false, id), at(b.addr.octets().into(), b.port, b.protocol));
    }
    let four = maps
        .services4
        .entries()?
        .into_iter()
        .map(|(k, v)| (IpAddr::from(k.addr.octets()), k.port, k.protocol, k.backend_slot, v));
    let six = maps
        .services6
        .entries()?
        .into_iter()
        .map(|(k, v)| (IpAddr::from(k.addr.octets()), k.port, k.protocol, k.backend_slot, v));
    let all: Vec<_> = four.chain(six).collect();
    let heads: BTreeMap<_, u16> = all.iter().filter(|s| s.3 == 0).map(|s| ((s.0, s.1, s.2), s.4.rev_nat)).collect();
    let mut rows = BTreeMap::new();
    for (address, port, protocol, slot, value) in all {
        let rev_nat = heads.get(&(address, port, protocol)).copied().unwrap_or(0);
        let key = format!("{} ({slot})", at(address, port, protocol));
        rows.insert(key, vec![service(address, slot, rev_nat, &value, &backends)]);
    }
    Ok(rows)
}

fn service(
    address: IpAddr,
    slot: u16,
    rev_nat: u16,
    value: &Service,
    backends: &BTreeMap<(bool, u32), String>,
) -> String {
    if slot == 0 {
        let nothing = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        return format!("{nothing} ({rev_nat}) (0) [ClusterIP, non-routable]");
    }
    let backend = backends.get(&(address.is_ipv4(), value.backend_id));
    format!("{} ({rev_nat}) ({slot})", backend.map_or("backend not found", String::as_str))
}

fn at(address: IpAddr, port: abi::Port, protocol: u8) -> String {
    let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
    format!("{host}:{}/{}", port.number(), protocol_name(protocol))
}

/// Name of an IP protocol.
pub fn protocol_name(protocol: u8) -> String {
    match protocol {
        0 => "ANY".into(),
        1 => "ICMP".into(),
        6 => "TCP".into(),
        17 => "UDP".into(),
        58 => "ICMPv6".into(),
        132 => "SCTP".into(),
        other => other.to_string(),
    }
}

/// One line of `bpf policy get`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyRow {
    /// `Deny` or `Allow`.
    pub policy: String,
    /// `Ingress` or `Egress`.
    pub direction: String,
    /// The peer; 0: all others.
    pub identity: u32,
    /// `80/TCP`, `ANY`.
    pub port: String,
    /// The proxy's port, or `NONE`.
    pub proxy_port: String,
    /// Bits that are compared of protocol and port.
    pub prefix: u32,
    /// Which rules decided.
    pub cookie: u32,
    /// Bytes of the packets that asked.
    pub bytes: u64,
    /// Packets that asked: of all identities that the policy does not tell apart together.
    pub packets: u64,
}

/// What a slot allows and denies; what it denies because nothing allows it is not listed.
pub fn policy_rows(slot: &SlotDump) -> Vec<PolicyRow> {
    let mut rows = Vec::new();
    for (key, counted) in slot.verdicts.iter().filter(|(_, c)| c.entry.verdict != policy::VERDICT_DEFAULT_DENY) {
        let entry = &counted.entry;
        let members = slot.classes.iter().filter(|(_, class)| *class == key.class).map(|(id, _)| *id);
        let all_others = (key.class == policy::CLASS_OTHERS).then_some(0);
        for identity in members.chain(all_others) {
            rows.push(PolicyRow {
                policy: if entry.verdict == policy::VERDICT_DENY { "Deny" } else { "Allow" }.into(),
                direction: if key.direction == policy::DIR_INGRESS { "Ingress" } else { "Egress" }.into(),
                identity,
                port: port_text(key),
                proxy_port: if entry.proxy_port.number() == 0 {
                    "NONE".into()
                } else {
                    entry.proxy_port.number().to_string()
                },
                prefix: key.prefix_len.saturating_sub(policy::PREFIX_ANY_PROTOCOL),
                cookie: entry.rule_set,
                bytes: counted.bytes.get(),
                packets: counted.packets.get(),
            });
        }
    }
    rows.sort();
    rows
}

fn port_text(key: &VerdictKey) -> String {
    match key.prefix_len {
        policy::PREFIX_ANY_PROTOCOL => "ANY".into(),
        policy::PREFIX_PROTOCOL => protocol_name(key.protocol),
        policy::PREFIX_FULL => format!("{}/{}", key.port.number(), protocol_name(key.protocol)),
        length => {
            let wide = policy::PREFIX_FULL.saturating_sub(length).min(16);
            let last = u32::from(key.port.number()) | ((1_u32 << wide) - 1);
            format!("{}-{last}/{}", key.port.number(), protocol_name(key.protocol))
        }
    }
}

/// `bpf policy get`.
pub fn policy(rows: &[PolicyRow], labels: Option<&BTreeMap<u32, Vec<String>>>) -> String {
    let who = if labels.is_some() { "LABELS (source:key[=value])" } else { "IDENTITY" };
    let mut text =
        format!("POLICY\tDIRECTION\t{who}\tPORT/PROTO\tPROXY PORT\tAUTH TYPE\tBYTES\tPACKETS\tPREFIX\tCOOKIE\n");
    for row in rows {
        let known = labels.and_then(|all| all.get(&row.identity)).cloned();
        let names = match (labels, row.identity) {
            (Some(_), 0) => vec!["ANY".to_owned()],
            (None, id) => vec![id.to_string()],
            (Some(_), id) => known.unwrap_or_else(|| vec![id.to_string()]),
        };
        for (at, name) in names.iter().enumerate() {
            let _ = if at == 0 {
                let PolicyRow { policy, direction, port, proxy_port, prefix, cookie, bytes, packets, .. } = row;
                writeln!(
                    text,
                    "{policy}\t{direction}\t{name}\t{port}\t{proxy_port}\tdisabled\t{bytes}\t{packets}\t{prefix}\t{cookie}"
                )
            } else {
                writeln!(text, "\t\t{name}\t\t\t\t\t\t\t")
            };
        }
    }
    let aligned = align(&text, 5, 3);
    let empty = "Policy stats empty. Perhaps the policy enforcement is disabled?\n";
    if rows.is_empty() { aligned + empty } else { aligned }
}

/// `bpf ct list global`; with the time that each has left, if wanted.
pub fn connections(maps: &Maps, time_left: bool) -> Result<Vec<String>> {
    let uptime = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).context("read the clock")?;
    let now = time_left.then_some(uptime.tv_sec());
    let four = maps.ct4.entries()?.into_iter();
    let four = four.map(|(k, v)| connection((k.addr_a.octets().into(), k.addr_b.octets().into()), &k, &v, now));
    let six = maps.ct6.entries()?.into_iter();
    let six = six.map(|(k, v)| connection((k.addr_a.octets().into(), k.addr_b.octets().into()), &k, &v, now));
    let mut all: Vec<String> = four.chain(six).collect();
    all.sort();
    Ok(all)
}

fn connection<A>((a, b): (IpAddr, IpAddr), key: &CtKey<A>, entry: &CtEntry, now: Option<i64>) -> String {
    let flags = entry.flags.get();
    let initiator_first = flags & conntrack::FLAG_INITIATOR_A != 0;
    let (from, to) =
        if initiator_first { ((a, key.port_a), (b, key.port_b)) } else { ((b, key.port_b), (a, key.port_a)) };
    let end = |(address, port): (IpAddr, abi::Port)| std::net::SocketAddr::new(address, port.number()).to_string();
    let kind = if key.kind == conntrack::KIND_SERVICE { "SVC" } else { "OUT" };
    let names = [
        (conntrack::FLAG_SEEN_REPLY, "SeenReply"),
        (conntrack::FLAG_TX_CLOSING, "TxClosing"),
        (conntrack::FLAG_RX_CLOSING, "RxClosing"),
        (conntrack::FLAG_SEEN_NON_SYN, "SeenNonSyn"),
        (conntrack::FLAG_LOOPBACK, "Loopback"),
    ];
    let set: Vec<&str> = names.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
    let left = |now| format!(" (remaining: {} sec(s))", i64::from(entry.expires.get()) - now);
    format!(
        "{} {kind} {} -> {} expires={}{} Packets={}/{} Bytes={}/{} RxFlagsSeen=0x{:02x} TxFlagsSeen=0x{:02x} Flags=0x{flags:04x} [ {} ] RevNAT={} SourceSecurityID={} DestinationSecurityID={} BackendID={}",
        protocol_name(key.protocol),
        end(from),
        end(to),
        entry.expires.get(),
        now.map(left).unwrap_or_default(),
        entry.packets[0].get(),
        entry.packets[1].get(),
        entry.bytes[0].get(),
        entry.bytes[1].get(),
        entry.tcp_flags[1].get(),
        entry.tcp_flags[0].get(),
        set.join(" "),
        entry.rev_nat.get(),
        entry.source_identity.get(),
        entry.destination_identity.get(),
        entry.backend.get(),
    )
}

/// One line of `bpf metrics list`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct MetricRow {
    /// Why packets were dropped; `Success`: they were not.
    pub reason: String,
    /// `INGRESS`, `EGRESS`, `UNKNOWN`.
    pub direction: String,
    /// How many.
    pub packets: u64,
    /// How long they were together.
    pub bytes: u64,
}

/// What the datapath counts.
pub fn metrics(maps: &Maps) -> Result<Vec<MetricRow>> {
    let mut rows = Vec::new();
    for (key, value) in maps.metrics.entries()? {
        let reason = if key.reason == 0 { "Success" } else { DropReason(key.reason).text() };
        let direction = match key.direction {
            1 => "INGRESS",
            2 => "EGRESS",
            _ => "UNKNOWN",
        };
        rows.push(MetricRow {
            reason: reason.into(),
            direction: direction.into(),
            packets: value.packets.get(),
            bytes: value.bytes.get(),
        });
    }
    rows.sort();
    Ok(rows)
}

/// `bpf metrics list`.
pub fn metrics_text(rows: &[MetricRow]) -> String {
    let mut text = String::from("REASON\tDIRECTION\tPACKETS\tBYTES\n");
    for MetricRow { reason, direction, packets, bytes } in rows {
        let _ = writeln!(text, "{reason}\t{direction}\t{packets}\t{bytes}");
    }
    align(&text, 5, 3)
}
