//! Which way do packets go?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};

use crate::error::ignore_missing;
use crate::{Error, Netlink, Result};

/// A unicast route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to; length 0: the default route.
    pub destination: IpNet,
    /// The next hop; none: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Number of the device.
    pub device: u32,
    /// The source address that packets of this node get.
    pub source: Option<IpAddr>,
    /// Largest packet on this way, if it is not the device's.
    pub mtu: Option<u32>,
    /// The next hop is on the link although no address of the device says so.
    pub onlink: bool,
    /// The table; 254 is the main one.
    pub table: u32,
}

impl Route {
    /// To a network on the link of a device, in the main table.
    pub fn new(destination: IpNet, device: u32) -> Self {
        let table = u32::from(RouteHeader::RT_TABLE_MAIN);
        Route { destination, gateway: None, device, source: None, mtu: None, onlink: false, table }
    }

    /// By way of this next hop.
    #[must_use]
    pub fn via(self, gateway: IpAddr) -> Self {
        Route { gateway: Some(gateway), ..self }
    }

    fn message(&self) -> RouteMessage {
        let mut message = match self.destination {
            IpNet::V4(net) => v4(net.addr(), net.prefix_len(), self),
            IpNet::V6(net) => v6(net.addr(), net.prefix_len(), self),
        };
        if let Some(mtu) = self.mtu {
            message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
        }
        message
    }

    fn from_message(message: &RouteMessage) -> Option<Route> {
        let mut destination = match message.header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let (mut gateway, mut device, mut source, mut mtu) = (None, None, None, None);
        let mut table = u32::from(message.header.table);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Gateway(address) => gateway = ip(address),
                RouteAttribute::Oif(index) => device = Some(*index),
                RouteAttribute::PrefSource(address) => source = ip(address),
                RouteAttribute::Table(id) => table = *id,
                RouteAttribute::Metrics(metrics) => mtu = metrics.iter().find_map(mtu_of),
                _ => {}
            }
        }
        let destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
        let onlink = message.header.flags.contains(rtnetlink::packet_route::route::RouteFlags::Onlink);
        Some(Route { destination, gateway, device: device?, source, mtu, onlink, table })
    }
}

fn mtu_of(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    }
}

fn v4(address: Ipv4Addr, length: u8, route: &Route) -> RouteMessage {
    let mut builder = common(RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, length), route);
    if let Some(IpAddr::V4(gateway)) = route.gateway {
        builder = builder.gateway(gateway);
    }
    if let Some(IpAddr::V4(source)) = route.source {
        builder = builder.pref_source(source);
    }
    builder.build()
}

fn v6(address: Ipv6Addr, length: u8, route: &Route) -> RouteMessage {
    let mut builder = common(RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, length), route);
    if let Some(IpAddr::V6(gateway)) = route.gateway {
        builder = builder.gateway(gateway);
    }
    if let Some(IpAddr::V6(source)) = route.source {
        builder = builder.pref_source(source);
    }
    builder.build()
}

fn common<T>(builder: RouteMessageBuilder<T>, route: &Route) -> RouteMessageBuilder<T> {
    let scope = if route.gateway.is_some() || route.destination.addr().is_ipv6() {
        RouteScope::Universe
    } else {
        RouteScope::Link
    };
    let builder = builder.output_interface(route.device).scope(scope).table_id(route.table);
    let builder = builder.kind(RouteType::Unicast).protocol(RouteProtocol::Static);
    if route.onlink { builder.onlink() } else { builder }
}

/// Number of `lo`, in every namespace.
const LOOPBACK: u32 = 1;

impl Netlink {
    /// Adds a route or replaces the one for the same destination.
    pub async fn replace_route(&self, route: &Route) -> Result<()> {
        let request = self.handle().route().add(route.message()).replace();
        request
            .execute()
            .await
            .map_err(Error::during(format!("set route to {} by device #{}", route.destination, route.device)))
    }

    /// Makes a table in which every address is one of this node, for packets that a rule sends there: sockets of the node may
    /// get packets to others' addresses then.
    pub async fn take_everything(&self, ipv6: bool, table: u32) -> Result<()> {
        fn message<T>(builder: RouteMessageBuilder<T>, table: u32) -> RouteMessageBuilder<T> {
            let builder = builder.table_id(table).kind(RouteType::Local).scope(RouteScope::Host);
            builder.protocol(RouteProtocol::Static).output_interface(LOOPBACK)
        }
        let message = if ipv6 {
            let everything = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(Ipv6Addr::UNSPECIFIED, 0);
            message(everything, table).build()
        } else {
            let everything = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(Ipv4Addr::UNSPECIFIED, 0);
            message(everything, table).build()
        };
        let request = self.handle().route().add(message).replace();
        request.execute().await.map_err(Error::during(format!("make table {table} take all packets")))
    }

    /// Removes a route; gone already is success.
    pub async fn delete_route(&self, route: &Route) -> Result<()> {
        let deleted = self.handle().route().del(route.message()).execute().await;
        ignore_missing(deleted.map_err(Error::during(format!("delete route to {}", route.destination))))
    }

    /// The unicast routes of all tables, both families.
    pub async fn routes(&self) -> Result<Vec<Route>> {
        let mut all = Vec::new();
        for query in [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()] {
            let messages: Vec<RouteMessage> =
                self.handle().route().get(query).execute().try_collect().await.map_err(Error::during("list routes"))?;
            let unicast = messages.iter().filter(|m| m.header.kind == RouteType::Unicast);
            all.extend(unicast.filter_map(Route::from_message));
        }
        Ok(all)
    }
}
