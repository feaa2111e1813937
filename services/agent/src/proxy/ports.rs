//! At which ports of the loopback addresses does the proxy listen? At the same ones for as long as the node is up.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::path::Path;

use abi::policy::{DIR_EGRESS, DIR_INGRESS};
use proxy_api::{Direction, Listener, Parser, Traffic};
use serde::{Deserialize, Serialize};

const FILE: &str = "proxy_ports_state.json";
/// How many ports are tried for a listener.
const TRIES: usize = 100;

/// One port for each kind of traffic and direction; 0: nothing listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ports {
    /// TCP that ingress policies redirect.
    pub ingress: u16,
    /// TCP that egress policies redirect.
    pub egress: u16,
    /// DNS that egress policies redirect.
    pub dns: u16,
}

impl Ports {
    /// Those of an earlier run, or free ones of the range, which are remembered in this folder. `dns`: the port for DNS, if
    /// it is given (`tofqdns-proxy-port`).
    pub fn choose(folder: &Path, range: RangeInclusive<u16>, dns: Option<u16>) -> Result<Ports, String> {
        let path = folder.join(FILE);
        let earlier = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Ports>(&bytes).ok());
        if let Some(ports) = earlier.filter(|ports| ports.are_good(&range, dns)) {
            return Ok(ports);
        }
        let mut taken: Vec<u16> = dns.into_iter().collect();
        let mut next = || -> Result<u16, String> {
            let port = free(&range, &taken)?;
            taken.push(port);
            Ok(port)
        };
        let (ingress, egress) = (next()?, next()?);
        let ports = Ports { ingress, egress, dns: dns.map_or_else(next, Ok)? };
        let text = serde_json::to_vec(&ports).map_err(|error| error.to_string())?;
        crate::state::write_atomically(&path, &text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(ports)
    }

    fn are_good(&self, range: &RangeInclusive<u16>, dns: Option<u16>) -> bool {
        let all = [self.ingress, self.egress, self.dns];
        let distinct = all[0] != all[1] && all[1] != all[2] && all[0] != all[2];
        let of_dns = dns.map_or(range.contains(&self.dns), |dns| dns == self.dns);
        distinct && of_dns && all[..2].iter().all(|port| range.contains(port))
    }

    /// The listeners.
    pub fn listeners(&self) -> Vec<Listener> {
        let all = [
            (Traffic::Tcp, Direction::Ingress, self.ingress),
            (Traffic::Tcp, Direction::Egress, self.egress),
            (Traffic::Dns, Direction::Egress, self.dns),
        ];
        let on = all.into_iter().filter(|(.., port)| *port != 0);
        on.map(|(traffic, direction, port)| Listener { traffic, direction, port }).collect()
    }

    /// Where traffic goes that is read in this way and redirected in this direction; 0: nowhere.
    pub fn of(&self, parser: Parser, direction: u8) -> u16 {
        match (parser, direction) {
            (Parser::Dns, DIR_EGRESS) => self.dns,
            (Parser::Dns, _) => 0,
            (_, DIR_INGRESS) => self.ingress,
            (_, _) => self.egress,
        }
    }
}

/// A port of the range at which nobody listens.
fn free(range: &RangeInclusive<u16>, taken: &[u16]) -> Result<u16, String> {
    for _ in 0..TRIES {
        let port = rand::random_range(range.clone());
        let loopback = (Ipv4Addr::LOCALHOST, port);
        if !taken.contains(&port) && TcpListener::bind(loopback).is_ok() && UdpSocket::bind(loopback).is_ok() {
            return Ok(port);
        }
    }
    Err(format!("no port from {} to {} is free for the proxy", range.start(), range.end()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_the_same_in_the_next_run_unless_the_range_is_another() {
        let folder = std::env::temp_dir().join(format!("agent-ports-{}", std::process::id()));
        let ports = Ports::choose(&folder, 10_000..=20_000, None).unwrap();
        assert!(ports.are_good(&(10_000..=20_000), None));
        assert_eq!(Ports::choose(&folder, 10_000..=20_000, None).unwrap(), ports);
        let others = Ports::choose(&folder, 21_000..=22_000, None).unwrap();
        assert!(others.are_good(&(21_000..=22_000), None));
        std::fs::write(folder.join(FILE), b"{\"ingress\":").unwrap();
        assert!(Ports::choose(&folder, 10_000..=20_000, None).unwrap().are_good(&(10_000..=20_000), None));
        let fixed = Ports::choose(&folder, 10_000..=20_000, Some(5_353)).unwrap();
        assert_eq!((fixed.dns, Ports::choose(&folder, 10_000..=20_000, Some(5_353))), (5_353, Ok(fixed)));
        assert_ne!(Ports::choose(&folder, 10_000..=20_000, None).unwrap().dns, 5_353);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn each_kind_of_traffic_has_its_listener() {
        let ports = Ports { ingress: 1, egress: 2, dns: 3 };
        assert_eq!(ports.listeners().len(), 3);
        assert_eq!((ports.of(Parser::Http, DIR_INGRESS), ports.of(Parser::Tls, DIR_EGRESS)), (1, 2));
        assert_eq!((ports.of(Parser::Dns, DIR_EGRESS), ports.of(Parser::Dns, DIR_INGRESS)), (3, 0));
        assert!(Ports::default().listeners().is_empty());
    }
}
