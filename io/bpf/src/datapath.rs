//! How are the programs loaded, and how do they come to run on devices and cgroups?

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use abi::config::NodeConfig;
use aya::programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfLoader};

use crate::attach::{self, Attachment, Devices, Hook, SocketHook};
use crate::error::{Error, Result};
use crate::events::EventReader;
use crate::layout::{self, Sizes};
use crate::maps::Maps;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/datapath"));

/// Where the datapath keeps its pins, and how large it is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder in a BPF file system for maps (in the folder itself) and links (in `links`).
    pub pin_dir: PathBuf,
    /// Sizes of the maps. A pinned map of another size is replaced by an empty one.
    pub sizes: Sizes,
    /// How programs come to devices.
    pub attachment: Attachment,
}

impl Options {
    /// Usual sizes.
    pub fn new(pin_dir: impl Into<PathBuf>) -> Self {
        Options { pin_dir: pin_dir.into(), sizes: Sizes::default(), attachment: Attachment::default() }
    }
}

/// The loaded programs with their maps. Dropping it leaves everything in the kernel that is attached.
pub struct Datapath {
    object: Ebpf,
    maps: Maps,
    pin_dir: PathBuf,
    links: PathBuf,
    attachment: Attachment,
}

impl Datapath {
    /// Loads the programs onto the maps that are pinned, making those that are missing. Nothing is attached yet, links of
    /// an earlier agent keep running the earlier programs until `attach_*` exchanges them.
    pub fn open(options: &Options) -> Result<Datapath> {
        let pin_dir = options.pin_dir.clone();
        let links = pin_dir.join("links");
        fs::create_dir_all(&links).map_err(|source| Error::Pin { operation: "make", path: links.clone(), source })?;
        let maps = Maps::open_or_create(&pin_dir, &options.sizes)?;
        let object = load(&pin_dir, &options.sizes)?;
        let mut datapath = Datapath { object, maps, pin_dir, links, attachment: options.attachment };
        datapath.attachment = options.attachment.probed(datapath.program(Hook::FromContainer.program())?);
        Ok(datapath)
    }

    /// How programs come to devices on this kernel.
    pub fn attachment(&self) -> Attachment {
        self.attachment
    }

    fn devices(&self) -> Devices<'_> {
        Devices { links: &self.links, by: self.attachment }
    }

    /// The tables.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Folder of the pins.
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// See [`Maps::set_config`]. Set it before anything is attached.
    pub fn set_config(&self, config: &NodeConfig) -> Result<()> {
        self.maps.set_config(config)
    }

    /// See [`Maps::bump_ipcache_generation`].
    pub fn bump_ipcache_generation(&self) -> Result<u32> {
        self.maps.bump_ipcache_generation()
    }

    /// The reader of events; open one only.
    pub fn events(&self) -> Result<EventReader> {
        EventReader::open(&self.pin_dir)
    }

    /// Attaches to the host's side of a pod's veth.
    pub fn attach_container(&self, ifindex: u32) -> Result<()> {
        self.attach(Hook::FromContainer, ifindex)
    }

    /// Attaches to the tunnel device.
    pub fn attach_overlay(&self, ifindex: u32) -> Result<()> {
        self.attach(Hook::FromOverlay, ifindex)
    }

    /// Attaches to `cilium_host` and to its other end, `cilium_net`.
    pub fn attach_host(&self, host: u32, net: u32) -> Result<()> {
        self.attach(Hook::ToHost, net)?;
        self.attach(Hook::FromHost, host)
    }

    /// Attaches to the device that leads out of the node, both ways.
    pub fn attach_netdev(&self, ifindex: u32) -> Result<()> {
        self.attach(Hook::FromNetdev, ifindex)?;
        self.attach(Hook::ToNetdev, ifindex)
    }

    /// Attaches the program of a hook to a device of the current network namespace.
    pub fn attach(&self, hook: Hook, ifindex: u32) -> Result<()> {
        self.devices().attach(hook, ifindex, self.program(hook.program())?)
    }

    /// Attaches the socket programs to a cgroup of the unified hierarchy.
    pub fn attach_sockets(&self, cgroup: &Path) -> Result<()> {
        let open_error = |source| Error::Attach { program: "socket", target: cgroup.display().to_string(), source };
        let file = File::open(cgroup).map_err(open_error)?;
        for hook in SocketHook::ALL {
            attach::cgroup(&self.links, hook, &file, self.program(hook.program())?)?;
        }
        Ok(())
    }

    /// Detaches everything from a device of the current network namespace.
    pub fn detach(&self, ifindex: u32) -> Result<()> {
        Hook::ALL.iter().try_for_each(|hook| self.devices().detach(*hook, ifindex))
    }

    /// Forgets links whose device is gone; returns how many there were.
    pub fn remove_dead_links(&self) -> Result<usize> {
        attach::remove_dead(&self.links)
    }

    pub(crate) fn program(&self, name: &'static str) -> Result<BorrowedFd<'_>> {
        let failed = |e| Error::Program { program: name, source: Box::new(e) };
        let fd = match self.object.program(name) {
            Some(Program::SchedClassifier(p)) => p.fd(),
            Some(Program::CgroupSockAddr(p)) => p.fd(),
            _ => return Err(Error::NoProgram(name)),
        };
        fd.map(|fd| fd.as_fd()).map_err(failed)
    }

    /// How many instructions the verifier walked through for a program, if the kernel tells.
    pub fn verified_instructions(&self, hook: Hook) -> Option<u32> {
        self.object.program(hook.program())?.info().ok()?.verified_instruction_count()
    }
}

fn load(pin_dir: &Path, sizes: &Sizes) -> Result<Ebpf> {
    let specs = layout::specs(sizes);
    let mut loader = EbpfLoader::new();
    for spec in &specs {
        loader.map_pin_path(spec.name, pin_dir.join(spec.name));
    }
    let mut object = loader.load(OBJECT)?;
    for hook in Hook::ALL {
        classifier(&mut object, hook.program())?;
    }
    for hook in SocketHook::ALL {
        socket_program(&mut object, hook.program())?;
    }
    Ok(object)
}

fn classifier(object: &mut Ebpf, name: &'static str) -> Result<()> {
    let program = object.program_mut(name).ok_or(Error::NoProgram(name))?;
    let failed = |e| Error::Program { program: name, source: Box::new(e) };
    let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
    patiently(|| program.load()).map_err(failed)
}

fn socket_program(object: &mut Ebpf, name: &'static str) -> Result<()> {
    let program = object.program_mut(name).ok_or(Error::NoProgram(name))?;
    let failed = |e| Error::Program { program: name, source: Box::new(e) };
    let program: &mut CgroupSockAddr = program.try_into().map_err(failed)?;
    patiently(|| program.load()).map_err(failed)
}

/// How often a load is tried that the kernel broke off.
const LOADS: usize = 10;

/// The verifier breaks off when a signal is pending for the thread, and says "try again".
fn patiently(mut load: impl FnMut() -> std::result::Result<(), ProgramError>) -> std::result::Result<(), ProgramError> {
    let broken_off = |e: &ProgramError| match e {
        ProgramError::LoadError { io_error, .. } => io_error.kind() == std::io::ErrorKind::WouldBlock,
        _ => false,
    };
    for _ in 1..LOADS {
        match load() {
            Err(e) if broken_off(&e) => std::thread::yield_now(),
            other => return other,
        }
    }
    load()
}
