//! Whose are the connections that the proxy gets? The datapath's maps say it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use bpf::ProxyMaps;
use proxy_api::{Direction, Facts, Protocol, Redirected};

/// Where the agent pins its maps.
const PINS: &str = "/sys/fs/bpf/tc/globals";
/// The agent may come later than the proxy.
const PAUSE: Duration = Duration::from_millis(500);
const TRIES: u32 = 240;

/// Opens the maps as soon as the agent has made them.
pub fn open() -> Result<Box<dyn Redirected>> {
    let mut tries = 0;
    loop {
        match ProxyMaps::open(Path::new(PINS)) {
            Ok(maps) => return Ok(Box::new(Datapath(maps))),
            Err(error) if tries == TRIES => return Err(error).context("no agent has loaded the datapath"),
            Err(error) => {
                if tries == 0 {
                    tracing::info!(%error, "waiting for the agent to load the datapath");
                }
                tries += 1;
                std::thread::sleep(PAUSE);
            }
        }
    }
}

struct Datapath(ProxyMaps);

impl Redirected for Datapath {
    fn facts(&self, protocol: Protocol, peer: SocketAddr, local: SocketAddr) -> Option<Facts> {
        let number = match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        match self.0.redirected(number, peer, local) {
            Ok(found) => found.map(facts),
            Err(error) => {
                tracing::error!(%error, "a connection is refused, because nothing can be found out of it");
                None
            }
        }
    }

    fn speak_for(&self, socket: BorrowedFd<'_>, facts: &Facts) -> io::Result<()> {
        let direction = match facts.direction {
            Direction::Ingress => bpf::INGRESS,
            Direction::Egress => bpf::EGRESS,
        };
        let of = bpf::Redirected {
            endpoint: facts.endpoint,
            direction,
            source_identity: facts.source_identity,
            destination_identity: facts.destination_identity,
            rule_set: facts.rule_set,
            revision: u32::try_from(facts.revision).unwrap_or(u32::MAX),
        };
        self.0.speak_for(socket, &of).map_err(io::Error::other)
    }
}

fn facts(of: bpf::Redirected) -> Facts {
    Facts {
        endpoint: of.endpoint,
        direction: if of.direction == bpf::EGRESS { Direction::Egress } else { Direction::Ingress },
        source_identity: of.source_identity,
        destination_identity: of.destination_identity,
        rule_set: of.rule_set,
        revision: of.revision.into(),
    }
}
