//! How is the kernel's `bpf` system call spoken? One safe function per command that this crate uses.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{io, ptr};

const MAP_CREATE: u32 = 0;
const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const MAP_DELETE_ELEM: u32 = 3;
const MAP_GET_NEXT_KEY: u32 = 4;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const PROG_TEST_RUN: u32 = 10;
const MAP_GET_FD_BY_ID: u32 = 14;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const MAP_LOOKUP_BATCH: u32 = 24;
const MAP_UPDATE_BATCH: u32 = 26;
const MAP_DELETE_BATCH: u32 = 27;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;

/// Creating fails if the key exists.
pub const NO_EXIST: u64 = 1;
/// Flag of maps whose elements are allocated one by one.
pub const F_NO_PREALLOC: u32 = 1;
/// Only for `open`: the descriptor may read and not write.
pub const F_RDONLY: u32 = 1 << 3;

/// What a map is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapShape {
    /// `BPF_MAP_TYPE_*`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Most entries that it takes.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
}

fn call<T>(command: u32, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is a `repr(C)` prefix of `union bpf_attr` whose size is given, and whose addresses point to
    // live buffers of the lengths that the command needs; the kernel checks the rest.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(command: u32, attributes: &mut impl Sized) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::other("descriptor out of range"))?;
    // SAFETY: the command returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A name as the kernel takes it: 15 bytes and a zero.
fn object_name(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    out
}

/// Creates a map; `inner` is the model of the maps that an array of maps may hold.
pub fn map_create(name: &str, shape: &MapShape, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        shape: [u32; 5],
        inner_map_fd: u32,
        numa_node: u32,
        name: [u8; 16],
    }
    let s = shape;
    let mut attributes = Attributes {
        shape: [s.map_type, s.key_size, s.value_size, s.max_entries, s.flags],
        inner_map_fd: inner.map_or(0, |fd| fd.as_raw_fd() as u32),
        numa_node: 0,
        name: object_name(name),
    };
    descriptor(MAP_CREATE, &mut attributes)
}

#[repr(C, align(8))]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn element(map: BorrowedFd<'_>, key: *const u8, value: *mut u8, flags: u64) -> Element {
    Element { map_fd: map.as_raw_fd() as u32, pad: 0, key: key as u64, value: value as u64, flags }
}

/// Reads the value of a key into `value`; false: there is none.
pub fn map_lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    present(call(MAP_LOOKUP_ELEM, &mut element(map, key.as_ptr(), value.as_mut_ptr(), 0)))
}

/// Writes a value.
pub fn map_update(map: BorrowedFd<'_>, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
    call(MAP_UPDATE_ELEM, &mut element(map, key.as_ptr(), value.as_ptr().cast_mut(), flags)).map(drop)
}

/// Removes a key; false: it was not there.
pub fn map_delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    present(call(MAP_DELETE_ELEM, &mut element(map, key.as_ptr(), ptr::null_mut(), 0)))
}

/// Writes the key after `key` (the first, if there is none) into `next`; false: that was the last.
pub fn map_next_key(map: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let key = key.map_or(ptr::null(), <[u8]>::as_ptr);
    present(call(MAP_GET_NEXT_KEY, &mut element(map, key, next.as_mut_ptr(), 0)))
}

fn present(result: io::Result<libc::c_long>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Where a batched walk through a map is.
pub struct Cursor {
    token: [u8; 64],
    begun: bool,
}

impl Cursor {
    /// At the beginning.
    pub fn new() -> Self {
        Cursor { token: [0; 64], begun: false }
    }
}

/// Reads as many entries as fit into the buffers; returns how many, and whether more may follow.
pub fn map_lookup_batch(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    (keys, values): (&mut [u8], &mut [u8]),
    count: u32,
) -> io::Result<(u32, bool)> {
    let token = cursor.token.as_mut_ptr() as u64;
    let mut batch = Batch {
        in_batch: if cursor.begun { token } else { 0 },
        out_batch: token,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    let more = present(call(MAP_LOOKUP_BATCH, &mut batch))?;
    cursor.begun = true;
    Ok((batch.count, more))
}

/// Writes `count` entries; on an error the number that was written precedes it.
pub fn map_update_batch(map: BorrowedFd<'_>, keys: &[u8], values: &[u8], count: u32) -> Result<(), (u32, io::Error)> {
    write_batch(MAP_UPDATE_BATCH, map, keys, values.as_ptr() as u64, count)
}

/// Removes `count` keys; on an error the number that was removed precedes it.
pub fn map_delete_batch(map: BorrowedFd<'_>, keys: &[u8], count: u32) -> Result<(), (u32, io::Error)> {
    write_batch(MAP_DELETE_BATCH, map, keys, 0, count)
}

fn write_batch(
    command: u32,
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: u64,
    count: u32,
) -> Result<(), (u32, io::Error)> {
    let keys = keys.as_ptr() as u64;
    let map_fd = map.as_raw_fd() as u32;
    let mut batch = Batch { in_batch: 0, out_batch: 0, keys, values, count, map_fd, elem_flags: 0, flags: 0 };
    call(command, &mut batch).map(drop).map_err(|e| {
        // where the kernel refuses the call as such it leaves the count as it was; 524 is its own ENOTSUPP
        let refused = matches!(e.raw_os_error(), Some(libc::EPERM | libc::EINVAL | 524));
        (if refused { 0 } else { batch.count.min(count) }, e)
    })
}

#[repr(C, align(8))]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Makes an object last as a file in a BPF file system.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    call(OBJ_PIN, &mut Object { path: path.as_ptr() as u64, fd: object.as_raw_fd() as u32, flags: 0 }).map(drop)
}

/// Opens a pinned object.
pub fn open(path: &Path, flags: u32) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    descriptor(OBJ_GET, &mut Object { path: path.as_ptr() as u64, fd: 0, flags })
}

/// Opens a map by its number.
pub fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    descriptor(MAP_GET_FD_BY_ID, &mut [id, 0, 0])
}

fn info<const N: usize>(object: BorrowedFd<'_>) -> io::Result<[u32; N]> {
    #[repr(C, align(8))]
    struct Attributes {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut out = [0u32; N];
    let mut attributes =
        Attributes { fd: object.as_raw_fd() as u32, len: size_of::<[u32; N]>() as u32, info: out.as_mut_ptr() as u64 };
    call(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(out)
}

/// What a map is made of.
pub fn map_shape(map: BorrowedFd<'_>) -> io::Result<MapShape> {
    let [map_type, _id, key_size, value_size, max_entries, flags] = info(map)?;
    Ok(MapShape { map_type, key_size, value_size, max_entries, flags })
}

/// Device and attach type of a TCX link; device 0: the device is gone.
pub fn tcx_link_target(link: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    // struct bpf_link_info: type, id, prog_id, 4 bytes of padding, then the type's own part.
    let [_type, _id, _program, _pad, ifindex, attach_type] = info(link)?;
    Ok((ifindex, attach_type))
}

/// Name of a device of the current network namespace.
pub fn interface_name(ifindex: u32) -> io::Result<String> {
    let mut name: [libc::c_char; libc::IF_NAMESIZE] = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the length that the call demands.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) };
    if found.is_null() {
        return Err(io::Error::last_os_error());
    }
    let bytes = name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// Attaches a program to a device (TCX) or a cgroup; `target` is an interface index or a descriptor.
pub fn link_create(program: BorrowedFd<'_>, target: u32, attach_type: u32) -> io::Result<OwnedFd> {
    #[repr(C, align(8))]
    struct Attributes {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        relative: u64,
        expected_revision: u64,
    }
    let program = program.as_raw_fd() as u32;
    let mut attributes = Attributes { program, target, attach_type, flags: 0, relative: 0, expected_revision: 0 };
    descriptor(LINK_CREATE, &mut attributes)
}

/// Exchanges the program of a link in one step.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    call(LINK_UPDATE, &mut [link.as_raw_fd() as u32, program.as_raw_fd() as u32, 0, 0]).map(drop)
}

/// Input and output of a test run.
#[repr(C, align(8))]
#[derive(Default)]
pub struct TestRun {
    program: u32,
    /// What the program returned.
    pub result: u32,
    data_size_in: u32,
    /// Length of the packet afterwards.
    pub data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    /// Nanoseconds of one run, on average.
    pub duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
}

/// Runs a program on a packet, `repeat` times; the packet afterwards lies in `packet_out`.
pub fn test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    context: &mut [u8],
    (packet_out, repeat): (&mut [u8], u32),
) -> io::Result<TestRun> {
    let context_out = context.as_mut_ptr() as u64;
    let mut attributes = TestRun {
        program: program.as_raw_fd() as u32,
        data_size_in: packet.len() as u32,
        data_size_out: packet_out.len() as u32,
        data_in: packet.as_ptr() as u64,
        data_out: packet_out.as_mut_ptr() as u64,
        repeat,
        context_size_in: context.len() as u32,
        context_size_out: context.len() as u32,
        context_in: context_out,
        context_out,
        ..TestRun::default()
    };
    call(PROG_TEST_RUN, &mut attributes)?;
    Ok(attributes)
}
