//! Who is somebody that comes by a device of the node which the agent knows nothing of? Never the node, never a pod.

use anyhow::{Context, Result, ensure};
use std::process::ExitCode;
use std::time::Duration;
use testbed::{Lab, Plan, eventually, trials};

const PLAN: Plan<'static> = Plan { name: "devices", nodes: 1, options: &["--ipv6"] };
const WORKLOADS: &str = include_str!("../workloads/devices.yaml");
const WITHIN: Duration = Duration::from_secs(30);

/// A neighbour behind a second network card, and again behind a VLAN on that card (behind a third card on kernels that
/// were built without VLAN devices).
const NEIGHBOUR: &str = "
ip netns add neighbour
ip link add card type veth peer name card netns neighbour
if ip link add link card name card.100 type vlan id 100 2>/dev/null; then
  ip netns exec neighbour ip link add link card name card.100 type vlan id 100
else
  ip link add card.100 type veth peer name card.100 netns neighbour
fi
for device in card card.100; do
  echo 0 > /proc/sys/net/ipv4/conf/$device/rp_filter
  ip link set $device up
  ip netns exec neighbour ip link set $device up
done
ip addr add 192.168.200.1/24 dev card
ip addr add fd00:200::1/64 dev card nodad
ip addr add 192.168.100.1/24 dev card.100
ip addr add fd00:100::1/64 dev card.100 nodad
ip netns exec neighbour ip addr add 192.168.200.2/24 dev card
ip netns exec neighbour ip addr add fd00:200::2/64 dev card nodad
ip netns exec neighbour ip addr add 192.168.100.2/24 dev card.100
ip netns exec neighbour ip addr add fd00:100::2/64 dev card.100 nodad
";

fn main() -> ExitCode {
    trials::run(
        &PLAN,
        prepare,
        &[
            ("a25_a_second_card_brings_the_world", second_card),
            ("a25_a_vlan_brings_the_world", vlan),
            ("a24_the_nodes_ipv6_address_makes_nobody_the_node", forged_node),
            ("a25_the_address_of_a_pod_makes_nobody_the_pod", forged_pod),
            ("the_node_itself_is_still_the_node", node),
        ],
    )
}

fn prepare(lab: &Lab) -> Result<()> {
    lab.apply(WORKLOADS)?;
    for pod in ["guarded", "open"] {
        lab.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"])?.ok()?;
    }
    on_node(lab, &format!("set -e; {NEIGHBOUR}"))?;
    eventually(WITHIN, "the policy is enforced", || {
        let reached = lab.connects("default", "guarded", &addresses(lab, "open")?[0], 8080)?;
        ensure!(reached && !from_neighbour(lab, "192.168.200", &addresses(lab, "guarded")?[0])?, "not yet");
        Ok(())
    })
}

fn on_node(lab: &Lab, script: &str) -> Result<String> {
    let agent = lab.pod("kube-system", "k8s-app=cilium")?;
    lab.exec("kube-system", &agent, &["sh", "-c", script])?.ok()
}

/// IPv4 and IPv6 of a pod.
fn addresses(lab: &Lab, pod: &str) -> Result<[String; 2]> {
    let object = lab.get(&["pod", pod])?;
    let ip = |at: usize| object["status"]["podIPs"][at]["ip"].as_str().map(String::from).context("two addresses");
    Ok([ip(0)?, ip(1)?])
}

/// Does the neighbour, whose way leads over the node's address in this network, open a connection to there?
fn from_neighbour(lab: &Lab, network: &str, address: &str) -> Result<bool> {
    let (gateway, host) = match address.contains(':') {
        true => (network_of(network), format!("[{address}]")),
        false => (format!("{network}.1"), address.to_string()),
    };
    let script = format!(
        "ip netns exec neighbour ip route replace {address} via {gateway}; ip netns exec neighbour curl -s -o /dev/null -w \
         '%{{http_code}}' --max-time 2 'http://{host}:8080/'; true"
    );
    Ok(on_node(lab, &script)?.trim() == "200")
}

fn network_of(network: &str) -> String {
    if network.ends_with("200") { "fd00:200::1".into() } else { "fd00:100::1".into() }
}

/// Pods without policy are reached, those that let the node in are not, and Hubble tells of the world.
fn by(lab: &Lab, network: &str) -> Result<()> {
    for (at, world) in ["(world-ipv4)", "(world-ipv6)"].iter().enumerate() {
        let (open, guarded) = (&addresses(lab, "open")?[at], &addresses(lab, "guarded")?[at]);
        eventually(WITHIN, &format!("{network} to {open}"), || {
            ensure!(from_neighbour(lab, network, open)?, "not reached");
            Ok(())
        })?;
        ensure!(!from_neighbour(lab, network, guarded)?, "{network} reaches {guarded}");
        let text = lab.hubble(&["observe", "--to-ip", guarded, "--verdict", "DROPPED", "--last", "4"])?.ok()?;
        ensure!(text.contains(world) && text.contains("INGRESS DENIED"), "{text}");
    }
    Ok(())
}

fn second_card(lab: &Lab) -> Result<()> {
    by(lab, "192.168.200")
}

fn vlan(lab: &Lab) -> Result<()> {
    by(lab, "192.168.100")
}

/// Pings from an address that is not the neighbour's own.
fn forged(lab: &Lab, source: &str, target: &str) -> Result<()> {
    let (gateway, ping) = if source.contains(':') { ("fd00:100::1", "ping -6") } else { ("192.168.100.1", "ping") };
    let script = format!(
        "n='ip netns exec neighbour'; $n ip addr add {source} dev lo 2>/dev/null; $n ip route replace {target} via {gateway}; $n {ping} \
         -I {source} -c 2 -W 1 {target} >/dev/null; $n ip addr del {source} dev lo; true"
    );
    on_node(lab, &script).map(drop)
}

/// What Hubble saw arrive at the pod from this address.
fn arrived(lab: &Lab, source: &str, target: &str) -> Result<String> {
    lab.hubble(&[
        "observe",
        "--from-ip",
        source,
        "--to-ip",
        target,
        "--protocol",
        "ICMPv6",
        "--protocol",
        "ICMPv4",
        "--last",
        "10",
    ])?
    .ok()
}

fn forged_node(lab: &Lab) -> Result<()> {
    let guarded = &addresses(lab, "guarded")?[1];
    let own = "fd00:10:244::1";
    forged(lab, own, guarded)?;
    let text = arrived(lab, own, guarded)?;
    ensure!(text.contains("DENIED (ICMPv6 EchoRequest)") && !text.contains("(host)"), "{text}");
    ensure!(!text.contains("to-endpoint FORWARDED"), "{text}");
    Ok(())
}

fn forged_pod(lab: &Lab) -> Result<()> {
    let (open, guarded) = (addresses(lab, "open")?, addresses(lab, "guarded")?);
    for at in [0, 1] {
        forged(lab, &open[at], &guarded[at])?;
        let text = arrived(lab, &open[at], &guarded[at])?;
        ensure!(text.contains("Invalid source ip DROPPED") && !text.contains("to-endpoint FORWARDED"), "{text}");
    }
    Ok(())
}

fn node(lab: &Lab) -> Result<()> {
    for address in addresses(lab, "guarded")? {
        let host = if address.contains(':') { format!("[{address}]") } else { address };
        let code =
            on_node(lab, &format!("curl -s -o /dev/null -w '%{{http_code}}' --max-time 3 'http://{host}:8080/'"))?;
        ensure!(code.trim() == "200", "{host}: {code}");
    }
    Ok(())
}
