//! What does the cluster say to a question for a name?

use super::records::{Cluster, Key, Kind, Port, Slice, dashed};
use crate::message::{Reply, soa};
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};
use std::net::IpAddr;

/// How long answers hold, in seconds.
const TTL: u32 = 30;
/// The version of the scheme of names.
const SCHEME: &str = "1.1.0";

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is answered.
    Reply(Reply),
    /// The name is an alias of a name that has to be asked for too.
    Alias(Reply, Name),
    /// Not a name of the cluster.
    Elsewhere,
}

/// What a name of a service stands for: one entry for each name that SRV records lead to.
struct Found {
    target: Vec<String>,
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

/// `_http._tcp`.
struct PortName<'a> {
    name: &'a str,
    protocol: &'a str,
}

impl PortName<'_> {
    fn is(&self, port: &Port) -> bool {
        self.name == port.name && self.protocol == port.protocol
    }
}

impl Cluster {
    /// Answers `query`. Of several addresses another comes first at each `turn`.
    pub fn look_up(&self, query: &Query, turn: u16) -> Outcome {
        if let Some(address) = reversed(query.name()) {
            return self.names_of(query, address);
        }
        let Some(labels) = self.below_domain(query.name()) else { return Outcome::Elsewhere };
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [] => self.apex(query),
            ["dns-version"] => self.of_type(query, RecordType::TXT, vec![scheme()]),
            ["svc" | "pod"] => self.nothing(ResponseCode::NoError),
            [rest @ .., namespace, "svc"] => self.in_namespace(query, turn, namespace, rest),
            [namespace, "pod"] if self.has_namespace(namespace) => self.nothing(ResponseCode::NoError),
            [address, namespace, "pod"] if self.has_namespace(namespace) => self.pod(query, address),
            _ => self.nothing(ResponseCode::NXDomain),
        }
    }

    /// The labels of a name before the cluster's domain, in lower case.
    fn below_domain(&self, name: &Name) -> Option<Vec<String>> {
        let domain = self.domain();
        if !domain.zone_of(name) {
            return None;
        }
        let own = usize::from(name.num_labels()).checked_sub(domain.num_labels().into())?;
        Some(name.iter().take(own).map(|l| String::from_utf8_lossy(l).to_lowercase()).collect())
    }

    fn apex(&self, query: &Query) -> Outcome {
        match query.query_type() {
            RecordType::SOA => Outcome::Reply(Reply::answers(vec![self.soa()])),
            RecordType::NS => {
                let server = RData::NS(rdata::NS(self.primary()));
                Outcome::Reply(Reply::answers(vec![Record::from_rdata(query.name().clone(), TTL, server)]))
            }
            _ => self.nothing(ResponseCode::NoError),
        }
    }

    fn in_namespace(&self, query: &Query, turn: u16, namespace: &str, rest: &[&str]) -> Outcome {
        if !self.has_namespace(namespace) {
            return self.nothing(ResponseCode::NXDomain);
        }
        let (name, endpoint, port) = match rest {
            [] => return self.nothing(ResponseCode::NoError),
            [service] => (*service, None, None),
            [endpoint, service] => (*service, Some(*endpoint), None),
            [port, protocol, service] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(name), Some(protocol)) => (*service, None, Some(PortName { name, protocol })),
                _ => return self.nothing(ResponseCode::NXDomain),
            },
            _ => return self.nothing(ResponseCode::NXDomain),
        };
        let key = Key { namespace: namespace.to_string(), name: name.to_string() };
        match self.service(&key).map(|s| &s.kind) {
            Some(Kind::External(target)) if endpoint.is_none() && port.is_none() => alias(query, target),
            _ => self.found(query, turn, &self.find(&key, endpoint, port.as_ref())),
        }
    }

    fn find(&self, key: &Key, endpoint: Option<&str>, port: Option<&PortName<'_>>) -> Vec<Found> {
        let Some(service) = self.service(key) else { return Vec::new() };
        match (&service.kind, endpoint) {
            (Kind::External(_), _) => Vec::new(),
            (Kind::Addresses(addresses), None) => numbers(&service.ports, port)
                .map(|ports| Found { target: path(key, None), addresses: addresses.clone(), ports })
                .into_iter()
                .collect(),
            (Kind::Headless | Kind::Addresses(_), _) => {
                self.slices(key).flat_map(|slice| of_slice(key, slice, endpoint, port)).collect()
            }
        }
    }

    fn found(&self, query: &Query, turn: u16, found: &[Found]) -> Outcome {
        if found.is_empty() {
            return self.nothing(ResponseCode::NXDomain);
        }
        if query.query_type() == RecordType::SRV {
            return self.services(query, found);
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.iter().flat_map(|f| &f.addresses) {
            if is_of(*address, query.query_type()) && !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        if !addresses.is_empty() {
            let first = usize::from(turn) % addresses.len();
            addresses.rotate_left(first);
        }
        self.of_type(query, query.query_type(), addresses.into_iter().map(data).collect())
    }

    fn services(&self, query: &Query, found: &[Found]) -> Outcome {
        let all: usize = found.iter().map(|f| f.ports.len()).sum();
        let weight = u16::try_from(100 / all.max(1)).unwrap_or(1).max(1);
        let mut reply = Reply::answers(Vec::new());
        for one in found {
            let Some(target) = self.absolute(&one.target) else { continue };
            for port in &one.ports {
                let srv = RData::SRV(rdata::SRV::new(0, weight, *port, target.clone()));
                reply.answers.push(Record::from_rdata(query.name().clone(), TTL, srv));
            }
            let address = |a: &IpAddr| Record::from_rdata(target.clone(), TTL, data(*a));
            reply.additionals.extend(one.addresses.iter().map(address));
        }
        if reply.answers.is_empty() { self.nothing(ResponseCode::NoError) } else { Outcome::Reply(reply) }
    }

    /// `10-244-1-5.shop.pod`: any address has such a name.
    fn pod(&self, query: &Query, label: &str) -> Outcome {
        let parsed: Option<IpAddr> = [".", ":"].iter().find_map(|sign| label.replace('-', sign).parse().ok());
        match parsed.filter(|a| dashed(*a) == label) {
            None => self.nothing(ResponseCode::NXDomain),
            Some(address) if is_of(address, query.query_type()) => {
                self.of_type(query, query.query_type(), vec![data(address)])
            }
            Some(_) => self.nothing(ResponseCode::NoError),
        }
    }

    fn names_of(&self, query: &Query, address: IpAddr) -> Outcome {
        let service = self.service_at(address).map(|key| path(key, None));
        let endpoints = self.endpoints_at(address);
        let paths = service.into_iter().chain(endpoints.into_iter().map(|(key, name)| path(key, Some(name))));
        let names: Vec<RData> = paths.filter_map(|p| Some(RData::PTR(rdata::PTR(self.absolute(&p)?)))).collect();
        if names.is_empty() { Outcome::Elsewhere } else { self.of_type(query, RecordType::PTR, names) }
    }

    /// Records for a question of type `kind`; nothing for any other question.
    fn of_type(&self, query: &Query, kind: RecordType, data: Vec<RData>) -> Outcome {
        if query.query_type() != kind || data.is_empty() {
            return self.nothing(ResponseCode::NoError);
        }
        let record = |data| Record::from_rdata(query.name().clone(), TTL, data);
        Outcome::Reply(Reply::answers(data.into_iter().map(record).collect()))
    }

    fn nothing(&self, code: ResponseCode) -> Outcome {
        Outcome::Reply(Reply::nothing(code, self.soa()))
    }

    fn soa(&self) -> Record {
        soa(self.domain(), &self.primary(), self.serial(), TTL)
    }

    fn primary(&self) -> Name {
        self.absolute(&["ns".into(), "dns".into()]).unwrap_or_else(|| self.domain().clone())
    }

    fn absolute(&self, labels: &[String]) -> Option<Name> {
        let labels = labels.iter().map(String::as_bytes);
        Name::from_labels(labels).ok()?.append_domain(self.domain()).ok()
    }
}

/// The labels of a service, or of an endpoint of it, below the cluster's domain.
fn path(key: &Key, endpoint: Option<&str>) -> Vec<String> {
    let service = [key.name.as_str(), key.namespace.as_str(), "svc"];
    endpoint.into_iter().chain(service).map(String::from).collect()
}

/// The ports that a question is for: all, or those of the name; none if there is no port of that name.
fn numbers(ports: &[Port], wanted: Option<&PortName<'_>>) -> Option<Vec<u16>> {
    let matching: Vec<u16> = ports.iter().filter(|p| wanted.is_none_or(|w| w.is(p))).map(|p| p.number).collect();
    (wanted.is_none() || !matching.is_empty()).then_some(matching)
}

fn of_slice(key: &Key, slice: &Slice, name: Option<&str>, port: Option<&PortName<'_>>) -> Vec<Found> {
    let Some(ports) = numbers(&slice.ports, port) else { return Vec::new() };
    let named = slice.endpoints.iter().filter(|e| name.is_none_or(|n| n == e.name));
    named
        .map(|e| Found { target: path(key, Some(&e.name)), addresses: vec![e.address], ports: ports.clone() })
        .collect()
}

fn alias(query: &Query, target: &Name) -> Outcome {
    let record = Record::from_rdata(query.name().clone(), TTL, RData::CNAME(rdata::CNAME(target.clone())));
    let reply = Reply::answers(vec![record]);
    match query.query_type() {
        RecordType::A | RecordType::AAAA => Outcome::Alias(reply, target.clone()),
        _ => Outcome::Reply(reply),
    }
}

fn scheme() -> RData {
    RData::TXT(rdata::TXT::new(vec![SCHEME.to_string()]))
}

fn is_of(address: IpAddr, kind: RecordType) -> bool {
    matches!((address, kind), (IpAddr::V4(_), RecordType::A) | (IpAddr::V6(_), RecordType::AAAA))
}

fn data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(rdata::A(address)),
        IpAddr::V6(address) => RData::AAAA(rdata::AAAA(address)),
    }
}

/// The address that `5.1.244.10.in-addr.arpa` asks for; none for other names and for whole networks.
fn reversed(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

#[cfg(test)]
mod tests;
