//! Which Ethernet address has a neighbour?

use std::net::IpAddr;

use futures::TryStreamExt;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};

use crate::error::ignore_missing;
use crate::{Error, Mac, Netlink, Result};

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Number of the device.
    pub device: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Entered by hand, not learnt.
    pub permanent: bool,
}

impl Netlink {
    /// Enters a neighbour for good, or replaces the entry.
    pub async fn replace_neighbour(&self, device: &str, address: IpAddr, mac: Mac) -> Result<()> {
        let index = self.link(device).await?.index;
        let request = self.handle().neighbours().add(index, address);
        let request = request.link_layer_address(&mac).state(NeighbourState::Permanent).replace();
        request.execute().await.map_err(Error::during(format!("set neighbour {address} on {device}")))
    }

    /// Removes a neighbour; gone already is success.
    pub async fn delete_neighbour(&self, device: &str, address: IpAddr) -> Result<()> {
        let index = self.link(device).await?.index;
        for message in self.neighbour_messages().await? {
            if message.header.ifindex == index && destination(&message) == Some(address) {
                let deleted = self.handle().neighbours().del(message).execute().await;
                ignore_missing(deleted.map_err(Error::during(format!("delete neighbour {address} on {device}"))))?;
            }
        }
        Ok(())
    }

    /// The neighbours whose Ethernet address is known.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>> {
        Ok(self.neighbour_messages().await?.iter().filter_map(Neighbour::from_message).collect())
    }

    async fn neighbour_messages(&self) -> Result<Vec<NeighbourMessage>> {
        self.handle().neighbours().get().execute().try_collect().await.map_err(Error::during("list neighbours"))
    }
}

impl Neighbour {
    fn from_message(message: &NeighbourMessage) -> Option<Neighbour> {
        let mac = message.attributes.iter().find_map(|a| match a {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        })?;
        let permanent = message.header.state == NeighbourState::Permanent;
        Some(Neighbour { device: message.header.ifindex, address: destination(message)?, mac, permanent })
    }
}

fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => Some(IpAddr::V4(*a)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(IpAddr::V6(*a)),
        _ => None,
    })
}
