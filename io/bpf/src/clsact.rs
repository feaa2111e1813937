//! How does a program get onto a device where the kernel knows no TCX links (before 6.6)? As a filter of its `clsact` qdisc.
//!
//! The filters have priority 1 and handle 1 and Cilium's names, so whoever looks with `tc` finds what is known. A filter
//! belongs to its device: it outlives the agent and ends with the device. Writing the same filter again exchanges its
//! program in one step. What others keep there stays, and wins no argument: the error names it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// A side of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What comes in.
    Ingress,
    /// What goes out.
    Egress,
}

impl Side {
    const BOTH: [Side; 2] = [Side::Ingress, Side::Egress];

    fn parent(self) -> TcHandle {
        let minor = match self {
            Side::Ingress => TcHandle::MIN_INGRESS,
            Side::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: u16::MAX, minor }
    }
}

/// What all names of our filters begin with; those of Cilium do too.
const OURS: &str = "cil_";
const PRIORITY: u32 = 1;
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };
const KIND: &str = "clsact";

/// Attaches a program, or exchanges the one that is there.
pub fn attach(ifindex: u32, side: Side, name: &str, program: BorrowedFd<'_>) -> io::Result<()> {
    if let Some(other) = foreign(ifindex, side)? {
        return Err(io::Error::other(format!("priority 1 is taken by the filter {other:?}")));
    }
    make_qdisc(ifindex)?;
    let options = vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32)),
        TcOption::Bpf(TcFilterBpfOption::ProgName(format!("{OURS}{name}"))),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ];
    let attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.into()), TcAttribute::Options(options)];
    let message = TcMessage::from_parts(filter(ifindex, side), attributes);
    request(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_ACK | NLM_F_CREATE).map(drop)
}

/// Removes our filter from a side of a device, and the qdisc if it holds nothing more; false: there was no such filter.
pub fn detach(ifindex: u32, side: Side) -> io::Result<bool> {
    let ours = filters(ifindex, side)?.iter().any(Filter::is_ours);
    if !ours {
        return Ok(false);
    }
    let message = TcMessage::from_parts(filter(ifindex, side), vec![TcAttribute::Kind(TcFilterBpf::KIND.into())]);
    request(RouteNetlinkMessage::DelTrafficFilter(message), NLM_F_ACK)?;
    for side in Side::BOTH {
        if !filters(ifindex, side)?.is_empty() {
            return Ok(true);
        }
    }
    request(RouteNetlinkMessage::DelQueueDiscipline(qdisc(ifindex)), NLM_F_ACK)?;
    Ok(true)
}

/// A filter on a device.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter {
    priority: u32,
    handle: u32,
    /// Name of its program, or else its kind.
    name: String,
}

impl Filter {
    fn is_ours(&self) -> bool {
        self.priority == PRIORITY && self.name.starts_with(OURS)
    }
}

/// Somebody else's filter in our place.
fn foreign(ifindex: u32, side: Side) -> io::Result<Option<String>> {
    let there = filters(ifindex, side)?.into_iter().find(|f| f.priority == PRIORITY && !f.is_ours());
    Ok(there.map(|filter| filter.name))
}

/// The filters on a side of a device; none, if it has no `clsact` qdisc.
fn filters(ifindex: u32, side: Side) -> io::Result<Vec<Filter>> {
    let header = TcHeader { index: ifindex as i32, parent: side.parent(), ..TcHeader::default() };
    let message = RouteNetlinkMessage::GetTrafficFilter(TcMessage::from_parts(header, Vec::new()));
    let answers = match request(message, NLM_F_DUMP) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => return Ok(Vec::new()),
        other => other?,
    };
    Ok(answers.into_iter().filter_map(described).collect())
}

fn described(answer: RouteNetlinkMessage) -> Option<Filter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = answer else { return None };
    let handle = u32::from(message.header.handle);
    // the kernel also names each priority once, with handle 0
    if handle == 0 {
        return None;
    }
    let mut filter = Filter { priority: message.header.info >> 16, handle, name: String::new() };
    for attribute in message.attributes {
        match attribute {
            TcAttribute::Kind(kind) if filter.name.is_empty() => filter.name = kind,
            TcAttribute::Options(options) => {
                for option in options {
                    if let TcOption::Bpf(TcFilterBpfOption::ProgName(name)) = option {
                        filter.name = name;
                    }
                }
            }
            _ => {}
        }
    }
    Some(filter)
}

/// Gives the device a `clsact` qdisc if it has none.
fn make_qdisc(ifindex: u32) -> io::Result<()> {
    match request(RouteNetlinkMessage::NewQueueDiscipline(qdisc(ifindex)), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
        Err(e) if e.raw_os_error() != Some(libc::EEXIST) => Err(e),
        _ => Ok(()),
    }
}

fn qdisc(ifindex: u32) -> TcMessage {
    let handle = TcHandle { major: u16::MAX, minor: 0 };
    let header = TcHeader { index: ifindex as i32, handle, parent: TcHandle::CLSACT, ..TcHeader::default() };
    TcMessage::from_parts(header, vec![TcAttribute::Kind(KIND.into())])
}

/// Where our filter is.
fn filter(ifindex: u32, side: Side) -> TcHeader {
    let every_protocol = u32::from((libc::ETH_P_ALL as u16).to_be());
    let info = PRIORITY << 16 | every_protocol;
    TcHeader { index: ifindex as i32, handle: HANDLE, parent: side.parent(), info, ..TcHeader::default() }
}

/// Sends a message to the kernel, about the network namespace of the calling thread; returns what it answers.
fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    answers(&socket)
}

/// Reads up to the end of an answer.
fn answers(socket: &Socket) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut all = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            let length = (message.header.length as usize).next_multiple_of(4).clamp(4, rest.len());
            rest = &rest[length..];
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(all),
                NetlinkPayload::Error(e) => return e.code.map_or(Ok(all), |_| Err(e.to_io())),
                NetlinkPayload::InnerMessage(inner) => all.push(inner),
                _ => {}
            }
        }
    }
}
