//! Who is meant by the names that flows have?

use std::net::IpAddr;

use abi::identity as id;
use identity::NumericIdentity;
use ipnet::IpNet;

use super::World;

impl World {
    /// Who is called this.
    pub fn find(&self, text: &str, ipv6: bool) -> Result<(Option<usize>, NumericIdentity), String> {
        let party = |at: usize| (Some(at), self.parties[at].identity);
        if let Some(name) = text.strip_prefix("node:") {
            let identity = self.nodes.get(name).ok_or_else(|| format!("there is no node {name:?}"))?;
            return Ok((None, *identity));
        }
        if let Some(name) = text.strip_prefix("dns:") {
            return self.find_name(name, ipv6);
        }
        if let Some(name) = text.strip_prefix("reserved:") {
            return Ok((None, self.reserved(name, ipv6)?));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(self.find_address(address));
        }
        self.by_name.get(text).map(|at| party(*at)).ok_or_else(|| format!("there is no endpoint {text:?}"))
    }

    /// True if an endpoint or a node has this address.
    pub fn is_taken(&self, address: &IpAddr) -> bool {
        let of_node = || self.addresses.exact(&IpNet::from(*address)).is_some_and(|one| one < id::LOCAL_CIDR);
        self.by_address.contains_key(address) || of_node()
    }

    fn find_address(&self, address: IpAddr) -> (Option<usize>, NumericIdentity) {
        if let Some(at) = self.by_address.get(&address) {
            return (Some(*at), self.parties[*at].identity);
        }
        let world = || self.world(address.is_ipv6());
        (None, self.addresses.of(address).unwrap_or_else(world))
    }

    fn find_name(&self, name: &str, ipv6: bool) -> Result<(Option<usize>, NumericIdentity), String> {
        let known = self.by_dns_name.get(name).or_else(|| self.by_dns_name.get(&policy::canonical_name(name)));
        let known = known.map(Vec::as_slice).unwrap_or_default();
        let of_family = known.iter().find(|address| address.is_ipv6() == ipv6).or(known.first());
        let address = of_family.ok_or_else(|| format!("no address of {name:?} was learned"))?;
        Ok(self.find_address(*address))
    }

    fn world(&self, ipv6: bool) -> NumericIdentity {
        match (self.families().ipv4 && self.families().ipv6, ipv6) {
            (false, _) => id::WORLD,
            (true, false) => id::WORLD_IPV4,
            (true, true) => id::WORLD_IPV6,
        }
    }

    fn reserved(&self, name: &str, ipv6: bool) -> Result<NumericIdentity, String> {
        if name == "world" {
            return Ok(self.world(ipv6));
        }
        let known = identity::RESERVED.iter().find(|(_, known)| *known == name);
        known.map(|(number, _)| *number).ok_or_else(|| format!("there is no reserved identity {name:?}"))
    }
}
