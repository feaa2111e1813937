//! What does the datapath know of a connection, and how is it told who speaks for whom?

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use abi::policy::{DIR_EGRESS, DIR_INGRESS};
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use proxy_api::{Direction, Facts, Protocol, Redirected};

/// The agent may come later than the proxy: how often, and how far apart, its tables are looked for.
const TRIES: u32 = 240;
const PAUSE: Duration = Duration::from_millis(500);

/// The datapath's tables.
pub struct Datapath {
    folder: PathBuf,
    maps: ArcSwap<bpf::ProxyMaps>,
}

impl Datapath {
    /// Opens the tables that are pinned in this folder, as soon as an agent has made them.
    pub fn open(folder: &Path) -> Result<Datapath> {
        let mut tries = 0;
        loop {
            match bpf::ProxyMaps::open(folder) {
                Ok(maps) => return Ok(Datapath { folder: folder.to_owned(), maps: ArcSwap::from_pointee(maps) }),
                Err(error) if tries == TRIES => {
                    return Err(error).with_context(|| format!("tables of the datapath in {}", folder.display()));
                }
                Err(error) if tries == 0 => tracing::info!(%error, "waiting for the agent to load the datapath"),
                Err(_) => {}
            }
            tries += 1;
            std::thread::sleep(PAUSE);
        }
    }
}

impl Redirected for Datapath {
    fn facts(&self, protocol: Protocol, peer: SocketAddr, local: SocketAddr) -> Option<Facts> {
        let protocol = match protocol {
            Protocol::Tcp => wire::TCP,
            Protocol::Udp => wire::UDP,
        };
        match self.maps.load().redirected(protocol, peer, local) {
            Ok(found) => found.map(|found| facts(&found)),
            Err(error) => {
                tracing::warn!(%error, "what the datapath decided cannot be read: a connection is refused");
                None
            }
        }
    }

    fn speak_for(&self, socket: BorrowedFd<'_>, facts: &Facts) -> std::io::Result<()> {
        self.maps.load().speak_for(socket, &redirected(facts)).map_err(std::io::Error::other)
    }

    /// An agent makes tables anew if their size is to be another: then those that were opened are nobody's any more.
    fn renew(&self) -> std::io::Result<()> {
        let maps = bpf::ProxyMaps::open(&self.folder).map_err(std::io::Error::other)?;
        self.maps.store(Arc::new(maps));
        Ok(())
    }
}

fn facts(found: &bpf::Redirected) -> Facts {
    Facts {
        endpoint: found.endpoint,
        direction: if found.direction == DIR_EGRESS { Direction::Egress } else { Direction::Ingress },
        source_identity: found.source_identity,
        destination_identity: found.destination_identity,
        rule_set: found.rule_set,
        revision: found.revision.into(),
    }
}

fn redirected(facts: &Facts) -> bpf::Redirected {
    bpf::Redirected {
        endpoint: facts.endpoint,
        direction: match facts.direction {
            Direction::Egress => DIR_EGRESS,
            Direction::Ingress => DIR_INGRESS,
        },
        source_identity: facts.source_identity,
        destination_identity: facts.destination_identity,
        rule_set: facts.rule_set,
        revision: u32::try_from(facts.revision).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_go_both_ways() {
        for direction in [Direction::Ingress, Direction::Egress] {
            let all =
                Facts { endpoint: 1, direction, source_identity: 2, destination_identity: 3, rule_set: 4, revision: 5 };
            assert_eq!(facts(&redirected(&all)), all);
        }
    }
}
