//! Which devices are there, and how are they made and changed?

use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan};

use crate::error::ignore_missing;
use crate::{Error, Namespace, Netlink, Result};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// A network device as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// Largest packet.
    pub mtu: u32,
    /// Set up by the administrator.
    pub up: bool,
    /// `veth`, `vxlan`, `bridge`, ...; none for physical devices and `lo`.
    pub kind: Option<String>,
    /// For a veth: number of the other end, in its namespace.
    pub peer_index: Option<u32>,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
}

/// A veth pair to make.
#[derive(Clone, Debug, Default)]
pub struct Veth {
    /// Name of the end that stays here.
    pub name: String,
    /// Name of the other end.
    pub peer_name: String,
    /// Where the other end lies; none: here.
    pub peer_namespace: Option<Namespace>,
    /// Address of this end; none: the kernel's choice.
    pub mac: Option<Mac>,
    /// Address of the other end.
    pub peer_mac: Option<Mac>,
    /// Of both ends.
    pub mtu: Option<u32>,
}

/// A VXLAN device to make, whose tunnel ends and network ids are chosen for each packet (`external`).
#[derive(Clone, Debug)]
pub struct Vxlan {
    /// Its name.
    pub name: String,
    /// UDP port of all tunnel ends.
    pub port: u16,
    /// None: the kernel's choice.
    pub mac: Option<Mac>,
    /// None: the kernel's choice.
    pub mtu: Option<u32>,
}

impl Netlink {
    /// All devices.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let messages: Vec<LinkMessage> =
            self.handle().link().get().execute().try_collect().await.map_err(Error::during("list devices"))?;
        Ok(messages.iter().map(Link::from_message).collect())
    }

    /// The device of this name, or nothing.
    pub async fn find_link(&self, name: &str) -> Result<Option<Link>> {
        self.find(name, self.handle().link().get().match_name(name)).await
    }

    /// The device of this number, or nothing.
    pub async fn find_link_by_index(&self, index: u32) -> Result<Option<Link>> {
        self.find(&format!("#{index}"), self.handle().link().get().match_index(index)).await
    }

    /// The device of this name.
    pub async fn link(&self, name: &str) -> Result<Link> {
        self.find_link(name).await?.ok_or_else(|| Error::NoDevice(name.into()))
    }

    async fn find(&self, name: &str, request: rtnetlink::LinkGetRequest) -> Result<Option<Link>> {
        let found = request.execute().try_next().await.map_err(Error::during(format!("look for device {name}")));
        match found {
            Ok(message) => Ok(message.as_ref().map(Link::from_message)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a veth pair; both ends are down.
    pub async fn add_veth(&self, veth: &Veth) -> Result<()> {
        let mut peer = with_common(LinkUnspec::new_with_name(&veth.peer_name), veth.peer_mac, veth.mtu);
        if let Some(namespace) = &veth.peer_namespace {
            peer = peer.setns_by_fd(namespace.as_raw_fd());
        }
        let own = LinkMessageBuilder::<LinkVeth>::new(&veth.name, &veth.peer_name);
        let own = with_common(own, veth.mac, veth.mtu).set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        self.add(own.build(), &format!("add veth {} with peer {}", veth.name, veth.peer_name)).await
    }

    /// Makes a VXLAN device with external control; it is down.
    pub async fn add_vxlan(&self, vxlan: &Vxlan) -> Result<()> {
        let message = LinkMessageBuilder::<LinkVxlan>::new(&vxlan.name)
            .collect_metadata(true)
            .learning(false)
            .port(vxlan.port)
            .udp_csum(false)
            .udp_zero_csum6_tx(true)
            .udp_zero_csum6_rx(true);
        self.add(with_common(message, vxlan.mac, vxlan.mtu).build(), &format!("add vxlan {}", vxlan.name)).await
    }

    /// Makes a bridge; it is down.
    pub async fn add_bridge(&self, name: &str) -> Result<()> {
        self.add(LinkBridge::new(name).build(), &format!("add bridge {name}")).await
    }

    async fn add(&self, message: LinkMessage, operation: &str) -> Result<()> {
        self.handle().link().add(message).execute().await.map_err(Error::during(operation))
    }

    /// Sets a device up.
    pub async fn set_up(&self, name: &str) -> Result<()> {
        self.change(name, "set up", LinkMessageBuilder::up).await
    }

    /// Sets a device down.
    pub async fn set_down(&self, name: &str) -> Result<()> {
        self.change(name, "set down", LinkMessageBuilder::down).await
    }

    /// Lets a device ask no neighbours for their Ethernet addresses.
    pub async fn set_no_arp(&self, name: &str) -> Result<()> {
        self.change(name, "switch ARP off for", |link| link.arp(false)).await
    }

    /// Sets the largest packet of a device.
    pub async fn set_mtu(&self, name: &str, mtu: u32) -> Result<()> {
        self.change(name, "set MTU of", |link| link.mtu(mtu)).await
    }

    /// Sets the Ethernet address of a device.
    pub async fn set_mac(&self, name: &str, mac: Mac) -> Result<()> {
        self.change(name, "set address of", |link| link.address(mac.to_vec())).await
    }

    /// Renames a device; it must be down.
    pub async fn rename(&self, name: &str, new_name: &str) -> Result<()> {
        self.change(name, "rename", |link| link.name(new_name)).await
    }

    /// Moves a device to another namespace.
    pub async fn move_to(&self, name: &str, namespace: &Namespace) -> Result<()> {
        self.change(name, "move", |link| link.setns_by_fd(namespace.as_raw_fd())).await
    }

    /// Makes a device a port of a bridge.
    pub async fn set_master(&self, name: &str, master: &str) -> Result<()> {
        let master = self.link(master).await?.index;
        self.change(name, "attach to a bridge", |link| link.controller(master)).await
    }

    /// Removes a device; gone already is success.
    pub async fn delete_link(&self, name: &str) -> Result<()> {
        let Some(link) = self.find_link(name).await? else { return Ok(()) };
        let deleted = self.handle().link().del(link.index).execute().await;
        ignore_missing(deleted.map_err(Error::during(format!("delete {name}"))))
    }

    async fn change(
        &self,
        name: &str,
        operation: &str,
        edit: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<()> {
        let index = self.link(name).await?.index;
        let message = edit(LinkUnspec::new_with_index(index)).build();
        self.handle().link().set(message).execute().await.map_err(Error::during(format!("{operation} {name}")))
    }
}

fn with_common<T>(message: LinkMessageBuilder<T>, mac: Option<Mac>, mtu: Option<u32>) -> LinkMessageBuilder<T>
where
    LinkMessageBuilder<T>: Sized,
    T: Default,
{
    let message = match mac {
        Some(mac) => message.address(mac.to_vec()),
        None => message,
    };
    match mtu {
        Some(mtu) => message.mtu(mtu),
        None => message,
    }
}

impl Link {
    fn from_message(message: &LinkMessage) -> Link {
        let up = message.header.flags.contains(LinkFlags::Up);
        let mut link = Link { index: message.header.index, up, ..Link::default() };
        for attribute in &message.attributes {
            link.take(attribute);
        }
        link
    }

    fn take(&mut self, attribute: &LinkAttribute) {
        match attribute {
            LinkAttribute::IfName(name) => self.name.clone_from(name),
            LinkAttribute::Address(address) => self.mac = address.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => self.mtu = *mtu,
            LinkAttribute::Link(peer) => self.peer_index = Some(*peer),
            LinkAttribute::Controller(master) => self.master = Some(*master),
            LinkAttribute::LinkInfo(infos) => self.kind = infos.iter().find_map(kind).map(InfoKind::to_string),
            _ => {}
        }
    }
}

fn kind(info: &LinkInfo) -> Option<&InfoKind> {
    match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    }
}
