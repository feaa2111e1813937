//! Which addresses do the devices have?

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};

use crate::error::{ignore_exists, ignore_missing};
use crate::{Error, Netlink, Result};

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The device's number.
    pub index: u32,
    /// The address with the length of its network.
    pub address: IpNet,
}

impl Netlink {
    /// Gives a device an address. IPv6 addresses are usable at once (no duplicate detection). There already: success.
    pub async fn add_address(&self, device: &str, address: IpNet) -> Result<()> {
        let index = self.link(device).await?.index;
        let mut request = self.handle().address().add(index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let added = request.execute().await.map_err(Error::during(format!("add address {address} to {device}")));
        ignore_exists(added)
    }

    /// Takes an address from a device; gone already is success.
    pub async fn delete_address(&self, device: &str, address: IpNet) -> Result<()> {
        let index = self.link(device).await?.index;
        for message in self.address_messages().await? {
            if Address::from_message(&message) == Some(Address { index, address }) {
                let deleted = self.handle().address().del(message).execute().await;
                ignore_missing(deleted.map_err(Error::during(format!("delete address {address} from {device}"))))?;
            }
        }
        Ok(())
    }

    /// The addresses of one device.
    pub async fn addresses(&self, device: &str) -> Result<Vec<IpNet>> {
        let index = self.link(device).await?.index;
        Ok(self.all_addresses().await?.into_iter().filter(|a| a.index == index).map(|a| a.address).collect())
    }

    /// The addresses of all devices.
    pub async fn all_addresses(&self) -> Result<Vec<Address>> {
        Ok(self.address_messages().await?.iter().filter_map(Address::from_message).collect())
    }

    async fn address_messages(&self) -> Result<Vec<AddressMessage>> {
        self.handle().address().get().execute().try_collect().await.map_err(Error::during("list addresses"))
    }
}

impl Address {
    fn from_message(message: &AddressMessage) -> Option<Address> {
        // IPv4 devices with a peer have it as `Address` and their own as `Local`; IPv6 has only `Address`.
        let local = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let address: IpAddr = local.or_else(|| {
            message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
        })?;
        let address = IpNet::new(address, message.header.prefix_len).ok()?;
        Some(Address { index: message.header.index, address })
    }
}
