//! Which addresses and node ports does a service get?

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::Error;
use crate::meta;
use crate::status::FieldError;
use crate::store::Transaction;

/// Addresses below this offset are left to those who ask for a fixed one.
const FIXED_BAND: u128 = 256;

/// The ranges that services are given addresses and ports from.
pub struct Allocation {
    ranges: Vec<IpNet>,
    ports: RangeInclusive<u16>,
}

fn family(range: &IpNet) -> &'static str {
    if matches!(range, IpNet::V4(_)) { "IPv4" } else { "IPv6" }
}

fn family_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn offset(range: &IpNet, offset: u128) -> IpAddr {
    match range.network() {
        IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base).wrapping_add(offset as u32))),
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(offset))),
    }
}

fn size(range: &IpNet) -> u128 {
    1u128 << u32::from(range.max_prefix_len() - range.prefix_len()).min(64)
}

fn addresses(service: &Value) -> Vec<IpAddr> {
    meta::list(service, "/spec/clusterIPs")
        .iter()
        .filter_map(Value::as_str)
        .filter_map(|text| text.parse().ok())
        .collect()
}

impl Allocation {
    pub fn new(ranges: &[IpNet], ports: RangeInclusive<u16>) -> Result<Self, Error> {
        if ranges.is_empty() || ranges.len() > 2 || (ranges.len() == 2 && family(&ranges[0]) == family(&ranges[1])) {
            let reason = format!("one range, or one of each IP family; found {ranges:?}");
            return Err(Error::Setting { name: "service_cidrs", reason });
        }
        Ok(Self { ranges: ranges.to_vec(), ports })
    }

    /// The first address of each range: that of the service `kubernetes`.
    pub fn first_addresses(&self) -> Vec<IpAddr> {
        self.ranges.iter().take(1).map(|range| offset(range, 1)).collect()
    }

    /// Gives the service what it needs and has not; errors where it asks for what it cannot have.
    pub fn allocate(&self, tx: &Transaction<'_>, old: Option<&Value>, service: &mut Value) -> Vec<FieldError> {
        let others: Vec<_> = tx
            .list("services", None)
            .into_iter()
            .filter(|other| {
                (meta::namespace(&other.value), meta::name(&other.value))
                    != (meta::namespace(service), meta::name(service))
            })
            .collect();
        let mut errors = Vec::new();
        if meta::text(service, "/spec/type") == "ExternalName" {
            let spec = meta::child(service, "spec");
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.shift_remove(field);
            }
            return errors;
        }
        if let Some(old) = old {
            keep(old, service);
        }
        let used: HashSet<IpAddr> = others.iter().flat_map(|other| addresses(&other.value)).collect();
        self.addresses(service, &used, &mut errors);
        let used = others.iter().flat_map(|other| meta::list(&other.value, "/spec/ports").to_vec());
        let used: HashSet<(u64, String)> = used
            .filter_map(|port| {
                Some((port["nodePort"].as_u64()?, port["protocol"].as_str().unwrap_or("TCP").to_owned()))
            })
            .collect();
        self.node_ports(service, &used, &mut errors);
        errors
    }

    fn addresses(&self, service: &mut Value, used: &HashSet<IpAddr>, errors: &mut Vec<FieldError>) {
        let first = meta::text(service, "/spec/clusterIP").to_owned();
        let mut wanted: Vec<String> =
            meta::list(service, "/spec/clusterIPs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if wanted.is_empty() && !first.is_empty() {
            wanted.push(first.clone());
        }
        if !first.is_empty() && wanted.first().is_some_and(|one| *one != first) {
            errors.push(FieldError::invalid("spec.clusterIPs", &json!(wanted), "first value must match `clusterIP`"));
            return;
        }
        let families = self.families(service, &wanted, errors);
        let headless = wanted.first().is_some_and(|one| one == "None");
        if !headless {
            for (index, family) in families.iter().enumerate() {
                match wanted.get(index) {
                    Some(text) => self.check(text, index, used, errors),
                    None => match self.pick(family, used) {
                        Some(address) => wanted.push(address.to_string()),
                        None => errors.push(FieldError::invalid("spec.clusterIPs", &json!([]), "the range is full")),
                    },
                }
            }
            wanted.truncate(families.len());
        }
        let dual = families.len() > 1;
        let spec = meta::child(service, "spec");
        if let Some(first) = wanted.first() {
            spec.insert("clusterIP".into(), json!(first));
            spec.insert("clusterIPs".into(), json!(wanted));
        }
        spec.insert("ipFamilies".into(), json!(families));
        meta::default(spec, "ipFamilyPolicy", if dual { "PreferDualStack" } else { "SingleStack" });
    }

    /// The IP families that the service is to have.
    fn families(&self, service: &Value, wanted: &[String], errors: &mut Vec<FieldError>) -> Vec<String> {
        let policy = meta::text(service, "/spec/ipFamilyPolicy").to_owned();
        let mut families: Vec<String> =
            meta::list(service, "/spec/ipFamilies").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if families.is_empty() {
            families = wanted
                .iter()
                .filter_map(|text| text.parse().ok())
                .map(|address| family_of(address).to_owned())
                .collect();
        }
        if families.is_empty() {
            families.push(family(&self.ranges[0]).to_owned());
        }
        if let Some(unknown) = families.iter().find(|one| !self.ranges.iter().any(|range| family(range) == *one)) {
            let detail = "not configured on this cluster";
            errors.push(FieldError::invalid("spec.ipFamilies[0]", &json!(unknown), detail));
        }
        if matches!(policy.as_str(), "PreferDualStack" | "RequireDualStack") {
            let second = self.ranges.iter().map(family).find(|one| !families.iter().any(|have| have == one));
            if families.len() == 1 {
                families.extend(second.map(str::to_owned));
            }
            if policy == "RequireDualStack" && families.len() < 2 {
                let detail = "this cluster is not configured for dual-stack services";
                errors.push(FieldError::invalid("spec.ipFamilyPolicy", &json!(policy), detail));
            }
        } else if families.len() > 1 && policy != "PreferDualStack" {
            let detail = "may only hold one value when ipFamilyPolicy is SingleStack";
            errors.push(FieldError::invalid("spec.ipFamilies", &json!(families), detail));
        }
        families
    }

    fn check(&self, text: &str, index: usize, used: &HashSet<IpAddr>, errors: &mut Vec<FieldError>) {
        let field = format!("spec.clusterIPs[{index}]");
        let Ok(address) = text.parse::<IpAddr>() else {
            errors.push(FieldError::invalid(
                field,
                &json!(text),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ));
            return;
        };
        let Some(range) = self.ranges.iter().find(|range| range.contains(&address)) else {
            let ranges: Vec<String> = self.ranges.iter().map(ToString::to_string).collect();
            let detail = format!(
                "failed to allocate IP {address}: the provided IP is not in the valid range. The range of valid IPs is {}",
                ranges.join(", ")
            );
            errors.push(FieldError::invalid("spec.clusterIPs", &json!([text]), &detail));
            return;
        };
        if used.contains(&address) || address == range.network() {
            let detail = format!("failed to allocate IP {address}: provided IP is already allocated");
            errors.push(FieldError::invalid("spec.clusterIPs", &json!([text]), &detail));
        }
    }

    fn pick(&self, wanted: &str, used: &HashSet<IpAddr>) -> Option<IpAddr> {
        let range = self.ranges.iter().find(|range| family(range) == wanted)?;
        let size = size(range);
        let last = if range.prefix_len() < range.max_prefix_len() - 1 { size - 1 } else { size };
        let start = if size > 4 * FIXED_BAND { FIXED_BAND } else { 2 };
        let span = last.checked_sub(start).filter(|span| *span > 0)?;
        let first = rand::random_range(0..span);
        (0..span).map(|step| offset(range, start + (first + step) % span)).find(|address| !used.contains(address))
    }

    fn node_ports(&self, service: &mut Value, used: &HashSet<(u64, String)>, errors: &mut Vec<FieldError>) {
        let kind = meta::text(service, "/spec/type").to_owned();
        let exposed =
            kind == "NodePort" || (kind == "LoadBalancer" && service["spec"]["allocateLoadBalancerNodePorts"] != false);
        let mut taken = used.clone();
        let ports = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten();
        for (index, port) in ports.enumerate() {
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            let given = port["nodePort"].as_u64().filter(|given| *given > 0);
            let field = format!("spec.ports[{index}].nodePort");
            if !exposed {
                if given.is_some() && kind != "LoadBalancer" {
                    errors.push(FieldError::forbidden(field, "may not be used when `type` is 'ClusterIP'"));
                }
                continue;
            }
            let chosen = match given {
                Some(given) if !(u64::from(*self.ports.start())..=u64::from(*self.ports.end())).contains(&given) => {
                    let range = format!(
                        "provided port is not in the valid range. The range of valid ports is {}-{}",
                        self.ports.start(),
                        self.ports.end()
                    );
                    errors.push(FieldError::invalid(field, &json!(given), &range));
                    continue;
                }
                Some(given) if taken.contains(&(given, protocol.clone())) => {
                    errors.push(FieldError::invalid(field, &json!(given), "provided port is already allocated"));
                    continue;
                }
                Some(given) => given,
                None => {
                    let span = u64::from(self.ports.end() - self.ports.start()) + 1;
                    let first = rand::random_range(0..span);
                    let all = (0..span).map(|step| u64::from(*self.ports.start()) + (first + step) % span);
                    let Some(free) = all.into_iter().find(|port| !taken.contains(&(*port, protocol.clone()))) else {
                        errors.push(FieldError::invalid(field, &json!(0), "no node port is free"));
                        continue;
                    };
                    free
                }
            };
            taken.insert((chosen, protocol));
            port["nodePort"] = chosen.into();
        }
    }
}

/// What a service had stays with it: its addresses, and node ports of the same port.
fn keep(old: &Value, service: &mut Value) {
    let new_kind = meta::text(service, "/spec/type").to_owned();
    let spec = meta::child(service, "spec");
    let absent =
        |value: Option<&Value>| value.is_none_or(|value| value.is_null() || value == "" || value == &json!([]));
    if absent(spec.get("clusterIP")) && absent(spec.get("clusterIPs")) {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old["spec"].get(field) {
                spec.insert(field.into(), value.clone());
            }
        }
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if absent(spec.get(field))
            && let Some(value) = old["spec"].get(field)
        {
            spec.insert(field.into(), value.clone());
        }
    }
    if !matches!(new_kind.as_str(), "NodePort" | "LoadBalancer") {
        // Ports given up with the type are free again.
        if matches!(meta::text(old, "/spec/type"), "NodePort" | "LoadBalancer") {
            for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Value::Object(map) = port {
                    map.shift_remove("nodePort");
                }
            }
        }
        return;
    }
    let before = meta::list(old, "/spec/ports");
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = before.iter().find(|one| one["port"] == port["port"] && one["protocol"] == port["protocol"]);
        if let (Some(same), None) = (same.and_then(|one| one.get("nodePort")), port.get("nodePort")) {
            port["nodePort"] = same.clone();
        }
    }
}
