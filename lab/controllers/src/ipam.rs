//! Which range of pod addresses does a node get?

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::action::{Action, warn};
use crate::view::{Kind, View};
use crate::{Config, read};

pub fn plan(view: &View, config: &Config) -> Vec<Action> {
    let mut used: HashSet<String> = view
        .all(Kind::Node)
        .flat_map(|node| read::list(node, "/spec/podCIDRs"))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let mut waiting: Vec<_> = view
        .all(Kind::Node)
        .filter(|node| read::text(node, "/spec/podCIDR").is_empty() && !read::is_deleting(node))
        .collect();
    waiting.sort_by_key(|node| (read::text(node, "/metadata/creationTimestamp").to_owned(), rank(read::name(node))));
    let mut actions = Vec::new();
    for node in waiting {
        let Some(ranges) = next(config, &used) else {
            actions.push(warn("node-ipam", node, "CIDRNotAvailable", "no range of pod addresses is free".to_owned()));
            continue;
        };
        used.extend(ranges.iter().cloned());
        let mut changed = Value::clone(node);
        changed["spec"]["podCIDR"] = json!(ranges[0]);
        changed["spec"]["podCIDRs"] = json!(ranges);
        actions.push(Action::Replace(Kind::Node, changed));
    }
    actions
}

/// The control plane first, then workers by number: `worker`, `worker2`, ... `worker10`.
fn rank(name: &str) -> (bool, u64, &str) {
    let digits = name.len() - name.trim_end_matches(|char: char| char.is_ascii_digit()).len();
    (!name.ends_with("control-plane"), name[name.len() - digits..].parse().unwrap_or(1), name)
}

/// The first ranges, one of each family and all of one index, that no node has.
fn next(config: &Config, used: &HashSet<String>) -> Option<Vec<String>> {
    let most = config
        .pod_cidrs
        .iter()
        .map(|(whole, prefix)| 1u64 << prefix.saturating_sub(whole.prefix_len()).min(32))
        .min()?;
    (0..most).find_map(|index| {
        let ranges: Option<Vec<String>> =
            config.pod_cidrs.iter().map(|(whole, prefix)| part(whole, *prefix, index)).collect();
        ranges.filter(|ranges| ranges.iter().all(|range| !used.contains(range)))
    })
}

fn part(whole: &IpNet, prefix: u8, index: u64) -> Option<String> {
    let shift = u32::from(whole.max_prefix_len().checked_sub(prefix)?);
    let base = match whole.network() {
        IpAddr::V4(base) => {
            IpAddr::V4(Ipv4Addr::from(u32::from(base).checked_add(u32::try_from(index).ok()?.checked_shl(shift)?)?))
        }
        IpAddr::V6(base) => {
            IpAddr::V6(Ipv6Addr::from(u128::from(base).checked_add(u128::from(index).checked_shl(shift)?)?))
        }
    };
    IpNet::new(base, prefix).ok().map(|net| net.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nodes_get_ranges_of_one_index_in_the_order_of_their_names() {
        let config = Config {
            pod_cidrs: vec![("10.244.0.0/16".parse().unwrap(), 24), ("fd00:10:244::/48".parse().unwrap(), 64)],
            authority: String::new(),
            node_grace: std::time::Duration::from_secs(40),
        };
        let mut view = View::default();
        for name in ["x-worker2", "x-control-plane", "x-worker", "x-worker10"] {
            view.put(Kind::Node, json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1"}, "spec": {}}));
        }
        let found: Vec<(String, Value)> = plan(&view, &config)
            .into_iter()
            .map(|action| match action {
                Action::Replace(_, node) => (read::name(&node).to_owned(), node["spec"]["podCIDRs"].clone()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(found[0], ("x-control-plane".to_owned(), json!(["10.244.0.0/24", "fd00:10:244::/64"])));
        assert_eq!(found[1], ("x-worker".to_owned(), json!(["10.244.1.0/24", "fd00:10:244:1::/64"])));
        assert_eq!(found[2].0, "x-worker2");
        assert_eq!(found[3], ("x-worker10".to_owned(), json!(["10.244.3.0/24", "fd00:10:244:3::/64"])));
    }
}
