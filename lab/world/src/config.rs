//! What does the user want the outside to be?

use crate::zone::{Problem, Records, Zone};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What is outside if the user does not say.
const DEFAULT: &str = include_str!("default.yaml");

/// The outside of a lab. A part that the file leaves out is as in the default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long answers of the name server hold, in seconds.
    #[serde(default = "ttl")]
    pub ttl: u32,
    /// Names and their records.
    #[serde(default = "zone")]
    pub zone: BTreeMap<String, Records>,
    /// Where the name server is asked.
    #[serde(default = "dns")]
    pub dns: Addresses,
    /// The servers.
    #[serde(default = "servers")]
    pub servers: Vec<Server>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// At which addresses; a server that names the address comes before one for any.
    #[serde(default)]
    pub address: Addresses,
    /// At which port.
    pub port: u16,
    /// What it does.
    pub kind: Kind,
    /// What it says: the body of an HTTP answer, the banner.
    #[serde(default)]
    pub body: Option<String>,
}

/// What a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Answers every request with `body`, else with what was asked of whom.
    Http,
    /// Sends back what it gets.
    TcpEcho,
    /// Sends `body` as soon as a client connects, then takes what comes.
    Banner,
    /// Sends each datagram back.
    UdpEcho,
}

/// `any`, one address or a list of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Written")]
pub enum Addresses {
    /// Every address that is not the cluster's.
    #[default]
    Any,
    /// These.
    These(Vec<IpAddr>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    Several(Vec<String>),
}

impl TryFrom<Written> for Addresses {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let words = match written {
            Written::One(word) if word == "any" => return Ok(Addresses::Any),
            Written::One(word) => vec![word],
            Written::Several(words) if words.is_empty() => return Err("an empty list of addresses".into()),
            Written::Several(words) => words,
        };
        let parse = |word: &String| word.parse().map_err(|_| format!("{word:?} is neither an IP address nor `any`"));
        Ok(Addresses::These(words.iter().map(parse).collect::<Result<_, String>>()?))
    }
}

impl Addresses {
    /// Whether `address` is one of them by name.
    pub fn names(&self, address: IpAddr) -> bool {
        matches!(self, Addresses::These(these) if these.contains(&address))
    }
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("read {path}: {error}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Not what a configuration looks like.
    #[error("{path}: {message}")]
    Form {
        /// Which file.
        path: PathBuf,
        /// What is wrong where.
        message: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        parse(DEFAULT).expect("the default is valid, a test reads it")
    }
}

impl Config {
    /// The names as the name server needs them.
    pub fn names(&self) -> Result<Zone, Problem> {
        Zone::new(&self.zone, self.ttl)
    }
}

/// Reads a configuration and checks its zone.
pub fn read(path: &Path) -> Result<Config, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::Read { path: path.into(), error })?;
    let form = |message: String| Error::Form { path: path.into(), message };
    let config = parse(&text).map_err(form)?;
    config.names().map_err(|e| form(e.to_string()))?;
    Ok(config)
}

fn parse(text: &str) -> Result<Config, String> {
    serde_saphyr::from_str(text).map_err(|e| e.to_string())
}

fn ttl() -> u32 {
    30
}

fn zone() -> BTreeMap<String, Records> {
    Config::default().zone
}

fn dns() -> Addresses {
    Config::default().dns
}

fn servers() -> Vec<Server> {
    Config::default().servers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_default_has_what_the_examples_need() {
        let config = Config::default();
        assert_eq!(config.zone["ifconfig.me"].a, [std::net::Ipv4Addr::new(34, 117, 118, 44)]);
        assert_eq!(config.zone["cnn.com"].aaaa.len(), 8);
        assert!(config.dns.names("172.18.0.1".parse().unwrap()));
        assert!(config.servers.iter().any(|s| s.port == 80 && s.kind == Kind::Http && s.address == Addresses::Any));
        assert_eq!(config.ttl, 30);
        config.names().unwrap();
    }

    #[test]
    fn parts_that_are_left_out_are_as_in_the_default() {
        let config =
            parse("servers: [{address: [192.0.2.1, '2001:db8::1'], port: 22, kind: banner, body: hi}]").unwrap();
        assert_eq!(config.zone, Config::default().zone);
        assert_eq!(config.servers.len(), 1);
        assert!(config.servers[0].address.names("2001:db8::1".parse().unwrap()));
        assert_eq!(parse("{}").unwrap(), Config::default());
    }

    #[test]
    fn the_examples_are_read() {
        for text in [
            include_str!("../../../examples/world.yaml"),
            include_str!("../../../test/scenarios/workloads/oke-world.yaml"),
        ] {
            parse(text).unwrap().names().unwrap();
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("servers: [{port: 22, kind: ssh}]", "ssh"),
            ("servers: [{port: 22, kind: banner, adress: any}]", "adress"),
            ("servers: [{port: 22, kind: banner, address: everywhere}]", "everywhere"),
            ("servers: [{port: 22, kind: banner, address: []}]", "empty"),
            ("zone: {a.b: {a: [not-an-address]}}", "address"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "zone: {a..b: {}}").unwrap();
        assert!(read(file.path()).unwrap_err().to_string().contains("a..b"));
    }
}
