//! Network devices, addresses, routes, neighbours, rules, settings and namespaces of this machine.
//!
//! A [`Netlink`] speaks to the kernel about one network namespace: the one in which it was opened. It stays with that
//! namespace, whichever thread uses it later.

mod address;
mod error;
mod link;
mod namespace;
mod neighbour;
mod route;
mod rule;
mod sysctl;

pub use address::Address;
pub use error::Error;
pub use link::{Link, Mac, Veth, Vxlan};
pub use namespace::Namespace;
pub use neighbour::Neighbour;
pub use route::Route;
pub use rule::Rule;
pub use sysctl::{prepare_node_side, read_sysctl, write_sysctl};

/// What calls return.
pub type Result<T> = std::result::Result<T, Error>;

/// A connection to the kernel for one network namespace. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
}

impl Netlink {
    /// For the network namespace of the calling thread. Must be called within a tokio runtime, which drives the
    /// connection until the last clone is gone.
    pub fn open() -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| Error::io("open netlink socket", e))?;
        tokio::spawn(connection);
        Ok(Netlink { handle })
    }

    /// For another network namespace. Must be called within a tokio runtime.
    pub fn open_in(namespace: &Namespace) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        namespace.run(move || {
            let _entered = runtime.enter();
            Netlink::open()
        })?
    }

    fn handle(&self) -> &rtnetlink::Handle {
        &self.handle
    }
}
