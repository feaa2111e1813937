//! What does the outside's zone say to a question?

use crate::message::{Reply, soa};
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType, rdata};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A chain of aliases longer than this is a mistake.
const ALIASES: usize = 8;

/// What is known of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Records {
    /// IPv4 addresses.
    pub a: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    pub aaaa: Vec<Ipv6Addr>,
    /// Texts.
    pub txt: Vec<String>,
    /// The name that this one is an alias of.
    pub cname: Option<String>,
    /// Instead of the zone's.
    pub ttl: Option<u32>,
}

/// Why a zone is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Problem {
    /// Not a name.
    #[error("zone: {0:?} is not a domain name")]
    Name(String),
    /// An alias has no other records.
    #[error("zone: {0:?} has cname and other records; an alias has no others")]
    Alias(String),
}

/// All names of the outside. `*.example.org` stands for what has no records of its own below `example.org`.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    names: HashMap<LowerName, Entry>,
    /// Names that have no records but names below them.
    above: HashSet<LowerName>,
    ttl: u32,
}

#[derive(Debug, Clone)]
struct Entry {
    records: Records,
    alias: Option<Name>,
}

impl Zone {
    /// Takes the names as a configuration writes them.
    pub fn new(names: &BTreeMap<String, Records>, ttl: u32) -> Result<Zone, Problem> {
        let mut zone = Zone { ttl, ..Zone::default() };
        for (text, records) in names {
            let name = absolute(text)?;
            let alias = records.cname.as_deref().map(absolute).transpose()?;
            if alias.is_some() && !(records.a.is_empty() && records.aaaa.is_empty() && records.txt.is_empty()) {
                return Err(Problem::Alias(text.clone()));
            }
            let mut parent = name.base_name();
            while !parent.is_root() {
                zone.above.insert(LowerName::new(&parent));
                parent = parent.base_name();
            }
            zone.names.insert(LowerName::new(&name), Entry { records: records.clone(), alias });
        }
        Ok(zone)
    }

    /// What the zone says. It is the whole outside: a name that it does not have does not exist.
    pub fn reply(&self, query: &Query) -> Reply {
        let mut answers = Vec::new();
        let mut name = query.name().clone();
        for _ in 0..ALIASES {
            let Some(entry) = self.find(&name) else {
                return self.nothing(&name, answers);
            };
            let ttl = entry.records.ttl.unwrap_or(self.ttl);
            let Some(target) = &entry.alias else {
                answers.extend(entry.of(query.query_type()).map(|data| Record::from_rdata(name.clone(), ttl, data)));
                return self.found(answers);
            };
            answers.push(Record::from_rdata(name, ttl, RData::CNAME(rdata::CNAME(target.clone()))));
            if query.query_type() == RecordType::CNAME {
                return Reply::answers(answers);
            }
            name = target.clone();
        }
        Reply::of(ResponseCode::ServFail)
    }

    fn find(&self, name: &Name) -> Option<&Entry> {
        let exact = LowerName::new(name);
        if let Some(entry) = self.names.get(&exact) {
            return Some(entry);
        }
        if self.above.contains(&exact) {
            return None;
        }
        let mut parent = name.base_name();
        while !parent.is_root() {
            let wildcard = parent.prepend_label("*").ok()?;
            if let Some(entry) = self.names.get(&LowerName::new(&wildcard)) {
                return Some(entry);
            }
            let parent_name = LowerName::new(&parent);
            if self.names.contains_key(&parent_name) || self.above.contains(&parent_name) {
                return None;
            }
            parent = parent.base_name();
        }
        None
    }

    fn found(&self, answers: Vec<Record>) -> Reply {
        if answers.is_empty() { Reply::nothing(ResponseCode::NoError, self.soa()) } else { Reply::answers(answers) }
    }

    fn nothing(&self, name: &Name, answers: Vec<Record>) -> Reply {
        let known = self.above.contains(&LowerName::new(name));
        let code = if known { ResponseCode::NoError } else { ResponseCode::NXDomain };
        Reply { answers, ..Reply::nothing(code, self.soa()) }
    }

    fn soa(&self) -> Record {
        let primary = Name::from_ascii("ns.outside.").unwrap_or_else(|_| Name::root());
        soa(&Name::root(), &primary, 1, self.ttl)
    }
}

impl Entry {
    fn of(&self, kind: RecordType) -> Box<dyn Iterator<Item = RData> + '_> {
        match kind {
            RecordType::A => Box::new(self.records.a.iter().map(|a| RData::A(rdata::A(*a)))),
            RecordType::AAAA => Box::new(self.records.aaaa.iter().map(|a| RData::AAAA(rdata::AAAA(*a)))),
            RecordType::TXT => Box::new(self.records.txt.iter().map(|t| RData::TXT(rdata::TXT::new(vec![t.clone()])))),
            _ => Box::new(std::iter::empty()),
        }
    }
}

fn absolute(text: &str) -> Result<Name, Problem> {
    let mut name = Name::from_ascii(text).map_err(|_| Problem::Name(text.to_string()))?;
    if text.is_empty() {
        return Err(Problem::Name(text.to_string()));
    }
    name.set_fqdn(true);
    Ok(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn zone() -> Zone {
        let names = [
            ("www.example.org", Records { cname: Some("example.org".into()), ..Records::default() }),
            ("gone.example.org", Records { cname: Some("nothing.example.com".into()), ..Records::default() }),
            ("one.loop", Records { cname: Some("two.loop".into()), ..Records::default() }),
            ("two.loop", Records { cname: Some("one.loop".into()), ..Records::default() }),
            ("example.org", Records { a: vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()], ..Records::default() }),
            ("*.wild.org", Records { a: vec![[192, 0, 2, 3].into()], ttl: Some(5), ..Records::default() }),
            ("deep.own.wild.org", Records { a: vec![[192, 0, 2, 4].into()], ..Records::default() }),
        ];
        Zone::new(&names.map(|(n, r)| (n.to_string(), r)).into(), 30).unwrap()
    }

    fn check(name: &str, kind: RecordType, code: ResponseCode, expected: &[&str]) {
        let query = Query::query(Name::from_ascii(name).unwrap(), kind);
        let reply = zone().reply(&query);
        let answers: Vec<String> = reply.answers.iter().map(ToString::to_string).collect();
        assert_eq!((reply.code, answers), (code, expected.iter().map(|s| s.to_string()).collect()), "{name} {kind}");
        let soa = reply.authorities.iter().any(|r| r.record_type() == RecordType::SOA);
        let final_answer = reply.answers.iter().any(|r| r.record_type() == kind);
        assert_eq!(soa, !final_answer && code != ResponseCode::ServFail, "SOA with no answer: {name}");
    }

    #[test]
    fn names_have_their_records_whatever_their_case() {
        let two = ["Example.ORG. 30 IN A 192.0.2.1", "Example.ORG. 30 IN A 192.0.2.2"];
        check("Example.ORG.", RecordType::A, ResponseCode::NoError, &two);
    }

    #[test]
    fn a_name_without_the_type_exists_and_another_does_not() {
        check("example.org.", RecordType::AAAA, ResponseCode::NoError, &[]);
        check("org.", RecordType::A, ResponseCode::NoError, &[]);
        check("example.com.", RecordType::A, ResponseCode::NXDomain, &[]);
        check("cnn.com.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain, &[]);
        check(".", RecordType::A, ResponseCode::NXDomain, &[]);
    }

    #[test]
    fn aliases_are_followed_to_an_end() {
        let alias = "www.example.org. 30 IN CNAME example.org.";
        let all = [alias, "example.org. 30 IN A 192.0.2.1", "example.org. 30 IN A 192.0.2.2"];
        check("www.example.org.", RecordType::A, ResponseCode::NoError, &all);
        check("www.example.org.", RecordType::CNAME, ResponseCode::NoError, &[alias]);
        let gone = "gone.example.org. 30 IN CNAME nothing.example.com.";
        check("gone.example.org.", RecordType::A, ResponseCode::NXDomain, &[gone]);
        check("one.loop.", RecordType::A, ResponseCode::ServFail, &[]);
    }

    #[test]
    fn a_wildcard_stands_for_what_has_no_records() {
        check("a.b.wild.org.", RecordType::A, ResponseCode::NoError, &["a.b.wild.org. 5 IN A 192.0.2.3"]);
        check("own.wild.org.", RecordType::A, ResponseCode::NoError, &[]);
        check("other.own.wild.org.", RecordType::A, ResponseCode::NXDomain, &[]);
    }

    #[test]
    fn wrong_zones_are_refused() {
        let named = |name: &str, records| Zone::new(&[(name.to_string(), records)].into(), 30).map(|_| ());
        assert_eq!(named("a..b", Records::default()), Err(Problem::Name("a..b".into())));
        let both = Records { cname: Some("x".into()), txt: vec!["y".into()], ..Records::default() };
        assert_eq!(named("a", both), Err(Problem::Alias("a".into())));
    }
}
