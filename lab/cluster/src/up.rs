//! How is a lab started, watched until it is up, and undone if it does not come up?

use crate::down;
use crate::layout::{Layout, Ports};
use crate::options::Options;
use crate::progress::Line;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// What `up` tells its user meanwhile.
pub trait Audience {
    /// A step is done.
    fn done(&mut self, step: &str, milliseconds: u64);
    /// Something else.
    fn note(&mut self, text: &str);
}

/// Brings a lab up; returns its ports. If it fails, or this process dies, nothing is left.
pub fn up(options: &Options, audience: &mut dyn Audience) -> Result<Ports> {
    options.check().map_err(anyhow::Error::msg)?;
    if !nix::unistd::geteuid().is_root() {
        bail!("a lab makes network namespaces and loads programs into the kernel: run it as root");
    }
    for file in &options.files {
        crate::manifests::read(file)?;
    }
    down::clear_stale(Some(&options.name));
    down::expect_free(&options.name)?;
    let layout = Layout::of(&options.name);
    layout.create(&options.program)?;
    let began = match start(&layout, options) {
        Ok(began) => began,
        Err(error) => {
            crate::reaper::clear(&layout)?;
            return Err(error);
        }
    };
    let (stream, mut reaper) = began;
    let outcome = follow(&stream, audience);
    if outcome.is_err() {
        // The supervisor ends when nobody holds the other end; its reaper then clears.
        drop(stream);
        reaper.wait().context("wait until the failed lab is cleared")?;
    }
    outcome?;
    layout.read("ports.json")
}

fn start(layout: &Layout, options: &Options) -> Result<(UnixStream, Child)> {
    layout.write("options.json", options)?;
    let (own, theirs) = UnixStream::pair().context("make a stream to the supervisor")?;
    let theirs: OwnedFd = theirs.into();
    let log = std::fs::File::create(layout.log("supervisor")).context("create the supervisor's log")?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("axoneme").args(["lab-reaper", &layout.name]);
    command.env("RUST_LOG", &options.log).current_dir("/");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // SAFETY: between fork and exec only system calls are made, on values that were allocated before.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid().map_err(std::io::Error::from)?;
            kubelet::spawner::hand_over(theirs.as_raw_fd(), 3)
        })
    };
    let child = command.spawn().context("start the lab's processes")?;
    // The command owns the other end; only with it gone does the end of the supervisor show here.
    drop(command);
    Ok((own, child))
}

fn follow(stream: &UnixStream, audience: &mut dyn Audience) -> Result<()> {
    let began = Instant::now();
    for line in BufReader::new(stream).lines() {
        let line = line.context("hear from the supervisor")?;
        match serde_json::from_str(&line).with_context(|| format!("the supervisor said {line:?}"))? {
            Line::Done { step, milliseconds } => audience.done(&step, milliseconds),
            Line::Note(text) => audience.note(&text),
            Line::Failed(reason) => bail!("{reason}"),
            Line::Ready => {
                let mut stream = stream;
                stream.write_all(b"keep\n").context("let the lab live on")?;
                // Its answer proves that the lab no longer depends on this process.
                let mut rest = String::new();
                BufReader::new(stream).read_line(&mut rest).context("hear that the lab lives on")?;
                audience.done("up", began.elapsed().as_millis() as u64);
                return Ok(());
            }
        }
    }
    bail!("the lab's supervisor ended before the lab was up")
}
