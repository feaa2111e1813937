//! Which addresses are meant: a prefix without some parts of it?

use std::net::IpAddr;

use ipnet::IpNet;
use policy::CidrSet;

/// A prefix without some parts of it; never empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Area {
    prefix: IpNet,
    /// Disjoint, sorted, and strictly within the prefix.
    minus: Vec<IpNet>,
}

impl Area {
    /// All of a prefix.
    pub fn new(prefix: IpNet) -> Area {
        Area { prefix: prefix.trunc(), minus: Vec::new() }
    }

    /// The area without these parts; `None` if nothing is left.
    pub fn without(self, parts: &[IpNet]) -> Option<Area> {
        parts.iter().try_fold(self, |area, part| area.split(part).1)
    }

    /// What lies in the prefix, and what does not.
    pub fn split(&self, by: &IpNet) -> (Option<Area>, Option<Area>) {
        if by.contains(&self.prefix) {
            return (Some(self.clone()), None);
        }
        if !self.prefix.contains(by) || self.minus.iter().any(|part| part.contains(by)) {
            return (None, Some(self.clone()));
        }
        let (within, around): (Vec<IpNet>, Vec<IpNet>) = self.minus.iter().partition(|part| by.contains(*part));
        let mut others = around;
        others.push(*by);
        others.sort();
        (Area::checked(*by, within), Area::checked(self.prefix, others))
    }

    /// What a set of addresses has of it, and what it has not.
    pub fn split_by_set(&self, set: &CidrSet) -> (Vec<Area>, Vec<Area>) {
        let (within, outside) = self.split(&set.prefix);
        let mut not: Vec<Area> = outside.into_iter().collect();
        let mut rest = within;
        for except in &set.except {
            let Some(area) = rest else { break };
            let (left_out, kept) = area.split(except);
            not.extend(left_out);
            rest = kept;
        }
        (rest.into_iter().collect(), not)
    }

    /// What both have.
    pub fn and(&self, other: &Area) -> Option<Area> {
        let (inner, outer) = if other.prefix.contains(&self.prefix) { (self, other) } else { (other, self) };
        if !outer.prefix.contains(&inner.prefix) {
            return None;
        }
        inner.clone().without(&outer.minus)
    }

    /// True if the address lies in it.
    pub fn has(&self, address: &IpAddr) -> bool {
        self.prefix.contains(address) && !self.minus.iter().any(|part| part.contains(address))
    }

    /// An address of it that is none of these, if there is one.
    pub fn address(&self, taken: &dyn Fn(&IpAddr) -> bool) -> IpAddr {
        let mut parts = vec![self.prefix];
        let mut found = self.prefix.addr();
        while let Some(part) = parts.pop() {
            let within: Vec<&IpNet> = self.minus.iter().filter(|minus| part.contains(*minus)).collect();
            if covers(&part, &within) {
                continue;
            }
            if within.is_empty() && !self.minus.iter().any(|minus| minus.contains(&part)) {
                // The second address, where there is one: first ones look like networks.
                let usual = part.hosts().take(8);
                for address in usual.chain([part.addr()]) {
                    found = address;
                    if !taken(&address) {
                        return address;
                    }
                }
                if part.prefix_len() == part.max_prefix_len() {
                    continue;
                }
            }
            parts.extend(halves(&part).into_iter().rev());
            if parts.len() > 4096 {
                break;
            }
        }
        found
    }

    fn checked(prefix: IpNet, minus: Vec<IpNet>) -> Option<Area> {
        let within: Vec<&IpNet> = minus.iter().collect();
        if covers(&prefix, &within) {
            return None;
        }
        Some(Area { prefix, minus })
    }
}

fn halves(prefix: &IpNet) -> Vec<IpNet> {
    prefix.subnets(prefix.prefix_len() + 1).map(Iterator::collect).unwrap_or_default()
}

/// True if the parts make up all of the prefix.
fn covers(prefix: &IpNet, parts: &[&IpNet]) -> bool {
    if parts.iter().any(|part| part.contains(prefix)) {
        return true;
    }
    if parts.is_empty() {
        return false;
    }
    let halves = halves(prefix);
    !halves.is_empty()
        && halves.iter().all(|half| {
            let within: Vec<&IpNet> =
                parts.iter().copied().filter(|part| half.contains(*part) || part.contains(half)).collect();
            covers(half, &within)
        })
}

/// `10.0.0.0/8 without 10.1.0.0/16`
impl std::fmt::Display for Area {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.prefix)?;
        if !self.minus.is_empty() {
            let most = 6;
            let parts: Vec<String> = self.minus.iter().take(most).map(ToString::to_string).collect();
            write!(f, " without {}", parts.join(", "))?;
            if self.minus.len() > most {
                write!(f, " and {} more", self.minus.len() - most)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn parts_are_disjoint_and_none_is_empty() {
        let all = Area::new(net("10.0.0.0/8"));
        let (within, around) = all.split(&net("10.1.0.0/16"));
        assert_eq!(within.unwrap().to_string(), "10.1.0.0/16");
        let around = around.unwrap();
        assert_eq!(around.to_string(), "10.0.0.0/8 without 10.1.0.0/16");
        assert_eq!(around.split(&net("10.1.2.0/24")), (None, Some(around.clone())));
        let halves = Area::new(net("10.0.0.0/8")).without(&[net("10.0.0.0/9"), net("10.128.0.0/9")]);
        assert_eq!(halves, None, "both halves are all of it");
        assert_eq!(all.and(&Area::new(net("11.0.0.0/8"))), None);
    }

    #[test]
    fn an_address_lies_in_the_area() {
        let area = Area::new(net("10.0.0.0/30")).without(&[net("10.0.0.0/31"), net("10.0.0.2/32")]).unwrap();
        assert_eq!(area.address(&|_| false).to_string(), "10.0.0.3");
        let whole = Area::new(net("0.0.0.0/0")).without(&[net("0.0.0.0/1")]).unwrap();
        assert!(net("128.0.0.0/1").contains(&whole.address(&|_| false)));
        let free = Area::new(net("10.0.0.0/24"));
        assert_ne!(free.address(&|one| one.to_string() == "10.0.0.1").to_string(), "10.0.0.1");
    }
}
