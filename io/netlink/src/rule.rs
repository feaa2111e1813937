//! Which routing table is asked for which packet?

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::IpVersion;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use crate::error::{ignore_exists, ignore_missing};
use crate::{Error, Netlink, Result};

/// "Packets like this: look in that table."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// For IPv6, else for IPv4.
    pub ipv6: bool,
    /// Lower comes first.
    pub priority: u32,
    /// The table to ask.
    pub table: u32,
    /// Mark and mask of the packet.
    pub mark: Option<(u32, u32)>,
    /// Source network.
    pub source: Option<IpNet>,
}

impl Netlink {
    /// Adds a rule; there already is success.
    pub async fn add_rule(&self, rule: &Rule) -> Result<()> {
        let handle = self.handle().rule();
        let base = handle.add().priority(rule.priority).table_id(rule.table).action(RuleAction::ToTable);
        let operation = format!("add rule {} for table {}", rule.priority, rule.table);
        let added = if rule.ipv6 {
            let mut request = base.v6();
            if let Some(IpNet::V6(net)) = rule.source {
                request = request.source_prefix(net.addr(), net.prefix_len());
            }
            mark(request.message_mut(), rule);
            request.execute().await
        } else {
            let mut request = base.v4();
            if let Some(IpNet::V4(net)) = rule.source {
                request = request.source_prefix(net.addr(), net.prefix_len());
            }
            mark(request.message_mut(), rule);
            request.execute().await
        };
        ignore_exists(added.map_err(Error::during(operation)))
    }

    /// Removes the rules of this priority and table; none is success.
    pub async fn delete_rule(&self, rule: &Rule) -> Result<()> {
        let version = if rule.ipv6 { IpVersion::V6 } else { IpVersion::V4 };
        let listed = self.handle().rule().get(version).execute().try_collect::<Vec<RuleMessage>>().await;
        for message in listed.map_err(Error::during("list rules"))? {
            let has = |wanted: &RuleAttribute| message.attributes.contains(wanted);
            if has(&RuleAttribute::Priority(rule.priority)) && table_of(&message) == rule.table {
                let deleted = self.handle().rule().del(message).execute().await;
                ignore_missing(deleted.map_err(Error::during(format!("delete rule {}", rule.priority))))?;
            }
        }
        Ok(())
    }
}

fn mark(message: &mut RuleMessage, rule: &Rule) {
    if let Some((mark, mask)) = rule.mark {
        message.attributes.push(RuleAttribute::FwMark(mark));
        message.attributes.push(RuleAttribute::FwMask(mask));
    }
}

fn table_of(message: &RuleMessage) -> u32 {
    let extended = message.attributes.iter().find_map(|a| match a {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    extended.unwrap_or_else(|| message.header.table.into())
}
