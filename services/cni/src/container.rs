//! How does the container's side of the device pair come to be?

use std::net::IpAddr;

use agent_api::IpamResponse;
use ipnet::IpNet;
use netlink::{Link, Namespace, Netlink, Route, Veth, write_sysctl};

use crate::result::{Pair, families};
use crate::{Attachment, CniError, Code};

/// Both sides of a device pair that is made but whose host's side is down.
pub struct Devices {
    /// The host's side.
    pub host: Link,
    /// The container's side.
    pub container: Link,
    /// The container's namespace.
    pub namespace: Namespace,
}

impl Devices {
    /// Names and Ethernet addresses as text.
    pub fn pair(&self) -> Pair {
        let text = |link: &Link| (link.name.clone(), mac_text(link));
        Pair { host: text(&self.host), container: text(&self.container) }
    }
}

/// Ethernet address as text, empty if there is none.
pub fn mac_text(link: &Link) -> String {
    link.mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":")).unwrap_or_default()
}

fn kernel(error: netlink::Error) -> CniError {
    CniError::new(Code::Kernel, "set up the container's network", error)
}

/// Makes the pair, addresses and routes. The host's side stays down, so no packet leaves the container yet.
pub async fn set_up(attachment: &Attachment, ipam: &IpamResponse) -> Result<Devices, CniError> {
    let namespace = namespace(attachment)?;
    let (host, container) = (Netlink::open().map_err(kernel)?, Netlink::open_in(&namespace).map_err(kernel)?);
    let devices = make_pair(attachment, ipam, &namespace, (&host, &container)).await?;
    let filled = fill(attachment, ipam, &devices, &container).await;
    if filled.is_err() {
        // The pair is useless; the first error is the one to report.
        let _ = host.delete_link(&devices.host.name).await;
    }
    filled.map(|()| devices)
}

fn namespace(attachment: &Attachment) -> Result<Namespace, CniError> {
    let path = attachment.netns.clone().unwrap_or_default();
    Namespace::open(&path).map_err(|e| CniError::new(Code::UnknownContainer, "open the container's namespace", e))
}

async fn make_pair(
    attachment: &Attachment,
    ipam: &IpamResponse,
    namespace: &Namespace,
    (host, container): (&Netlink, &Netlink),
) -> Result<Devices, CniError> {
    let name = attachment.host_device();
    // What an interrupted ADD left behind.
    host.delete_link(&name).await.map_err(kernel)?;
    let veth = Veth {
        name: name.clone(),
        peer_name: attachment.ifname.clone(),
        peer_namespace: Some(namespace.clone()),
        mtu: Some(ipam.device_mtu).filter(|mtu| *mtu > 0),
        ..Veth::default()
    };
    host.add_veth(&veth).await.map_err(kernel)?;
    let inside = container.link(&attachment.ifname).await.map_err(kernel)?;
    let outside = host.link(&name).await.map_err(kernel)?;
    Ok(Devices { host: outside, container: inside, namespace: namespace.clone() })
}

async fn fill(
    attachment: &Attachment,
    ipam: &IpamResponse,
    devices: &Devices,
    container: &Netlink,
) -> Result<(), CniError> {
    let name = attachment.ifname.as_str();
    let families = families(&ipam.address, &ipam.host_addressing);
    let ipv6 = families.iter().any(|family| family.version == "6");
    netlink::prepare_node_side(&devices.host.name, ipv6).map_err(kernel)?;
    devices.namespace.run(|| prepare_inside(name, ipv6)).map_err(kernel)?.map_err(kernel)?;
    container.set_up("lo").await.map_err(kernel)?;
    container.set_up(name).await.map_err(kernel)?;
    for family in families {
        let bad = |e: &dyn std::fmt::Display| CniError::new(Code::Agent, "understand the agent's address", e);
        let address: IpAddr = family.address.parse().map_err(|e| bad(&e))?;
        let gateway: IpAddr = family.gateway.parse().map_err(|e| bad(&e))?;
        let default: IpNet = family.default.parse().map_err(|e| bad(&e))?;
        container.add_address(name, IpNet::from(address)).await.map_err(kernel)?;
        if let Some(mac) = devices.host.mac {
            container.replace_neighbour(name, gateway, mac).await.map_err(kernel)?;
        }
        let index = devices.container.index;
        container.replace_route(&Route::new(IpNet::from(gateway), index)).await.map_err(kernel)?;
        let mtu = Some(ipam.route_mtu).filter(|mtu| *mtu > 0);
        let way = Route { mtu, ..Route::new(default, index).via(gateway) };
        container.replace_route(&way).await.map_err(kernel)?;
    }
    Ok(())
}

/// Runs inside: with IPv6, no address or route by router advertisement. Without, the kernel's own settings stay as they
/// are, as Cilium leaves them: what the container sends by IPv6 is dropped and seen.
fn prepare_inside(device: &str, ipv6: bool) -> netlink::Result<()> {
    if !ipv6 || !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        return Ok(());
    }
    write_sysctl(&["net", "ipv6", "conf", device, "disable_ipv6"], "0")?;
    write_sysctl(&["net", "ipv6", "conf", device, "accept_ra"], "0")?;
    write_sysctl(&["net", "ipv6", "conf", device, "accept_dad"], "0")
}

/// Lets packets flow: the agent has attached its programs and set the policy.
pub async fn open_gate(devices: &Devices) -> Result<(), CniError> {
    let host = Netlink::open().map_err(kernel)?;
    host.set_up(&devices.host.name).await.map_err(kernel)
}

/// Removes the pair; gone already is success.
pub async fn tear_down(attachment: &Attachment) -> Result<(), CniError> {
    let host = Netlink::open().map_err(kernel)?;
    host.delete_link(&attachment.host_device()).await.map_err(kernel)
}

/// CHECK: is the device there, up, with these addresses?
pub async fn check(attachment: &Attachment, addresses: &[String]) -> Result<(), CniError> {
    let differs =
        |details: String| CniError::new(Code::Differs, "the container's network is not as it was made", details);
    let container = Netlink::open_in(&namespace(attachment)?).map_err(kernel)?;
    let name = &attachment.ifname;
    let link = container.find_link(name).await.map_err(kernel)?;
    let link = link.ok_or_else(|| differs(format!("it has no device {name}")))?;
    if !link.up {
        return Err(differs(format!("its device {name} is down")));
    }
    let present = container.addresses(name).await.map_err(kernel)?;
    for address in addresses {
        if !present.iter().any(|p| p.to_string() == *address) {
            return Err(differs(format!("its device {name} lacks the address {address}")));
        }
    }
    Ok(())
}
