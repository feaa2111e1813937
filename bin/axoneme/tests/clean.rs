//! Does a lab leave nothing behind: after `down`, a failed `up`, a killed `up`, a killed supervisor and a killed reaper?
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_axoneme");

/// What a lab with this name could leave on the machine.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    mounts: BTreeSet<String>,
    links: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    processes: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    files: BTreeSet<String>,
}

impl Machine {
    /// As it is now, as far as it has to do with labs of this test.
    fn seen(name: &str) -> Machine {
        let own = |text: &String| text.contains(name);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let processes = processes(name);
        Machine {
            mounts: mounts.lines().map(String::from).filter(own).collect(),
            links: names("/sys/class/net"),
            cgroups: kubelet::cgroup::mounted().map(|root| names(root).into_iter().filter(own).collect()).unwrap(),
            namespaces: namespaces(&processes),
            processes,
            files: names("/run/axoneme/lab").into_iter().filter(own).collect(),
        }
    }
}

fn names(folder: impl AsRef<Path>) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// Numbers of the processes that are in the lab's cgroup or name the lab in their arguments.
fn processes(name: &str) -> BTreeSet<String> {
    names("/proc")
        .into_iter()
        .filter(|pid| pid.parse::<u32>().is_ok_and(|pid| pid != std::process::id()))
        .filter(|pid| {
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let arguments = read("cmdline").replace('\0', " ");
            read("cgroup").contains(&format!("axoneme-lab-{name}"))
                || (arguments.contains("lab-") && arguments.contains(name))
        })
        .collect()
}

fn namespaces(processes: &BTreeSet<String>) -> BTreeSet<String> {
    let link = |pid: &String| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    processes.iter().filter_map(link).map(|l| l.display().to_string()).collect()
}

fn lab(args: &[&str], name: &str) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("lab").args(args).args(["--name", name]).stdin(Stdio::null()).env_remove("AXONEME_LAB");
    command
}

fn run(args: &[&str], name: &str) -> Output {
    lab(args, name).output().unwrap()
}

fn begin(name: &str) -> Child {
    lab(&["up", "--nodes", "2", "--no-wait"], name).stderr(Stdio::null()).spawn().unwrap()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < limit, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn supervisor(name: &str) -> Option<i32> {
    let text = fs::read(format!("/run/axoneme/lab/{name}/owners.json")).ok()?;
    i32::try_from(serde_json::from_slice::<serde_json::Value>(&text).ok()?["supervisor"]["pid"].as_u64()?).ok()
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// These tests make namespaces and cgroups.
fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

#[test]
fn down_removes_everything_and_twice_is_no_error() {
    if !root() {
        return;
    }
    let name = "clean-down";
    let before = Machine::seen(name);
    let up = run(&["up", "--nodes", "2", "--ipv6", "--no-wait"], name);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    assert_ne!(Machine::seen(name), before, "a lab that is up shows");
    assert_eq!(Machine::seen(name).links, before.links, "no link in the machine's own namespace");
    assert!(!run(&["up"], name).status.success(), "a second lab of that name is refused");
    assert!(run(&["status"], name).status.success(), "and does the first no harm");
    for _ in 0..2 {
        assert!(run(&["down"], name).status.success());
        assert_eq!(Machine::seen(name), before);
    }
}

#[test]
fn a_failed_up_says_why_and_removes_everything() {
    if !root() {
        return;
    }
    let name = "clean-failed";
    let before = Machine::seen(name);
    let file = std::env::temp_dir().join(format!("{name}.yaml"));
    fs::write(&file, "apiVersion: nobody.example/v1\nkind: Unknown\nmetadata: {name: x}\n").unwrap();
    let up = run(&["up", "--nodes", "1", "--no-wait", "-f", &file.display().to_string()], name);
    let said = String::from_utf8_lossy(&up.stderr).into_owned();
    fs::remove_file(&file).unwrap();
    assert!(!up.status.success());
    assert!(said.contains("Unknown x"), "{said}");
    assert_eq!(Machine::seen(name), before);
}

#[test]
fn a_killed_up_removes_everything_whenever_it_is_killed() {
    if !root() {
        return;
    }
    let name = "clean-killed";
    let before = Machine::seen(name);
    for milliseconds in [5, 60, 200, 600] {
        let mut up = begin(name);
        std::thread::sleep(Duration::from_millis(milliseconds));
        up.kill().unwrap();
        up.wait().unwrap();
        // Killed before anybody else knew of it: then the folder is what the next command clears.
        until("nothing of the lab runs", || processes(name).is_empty());
        assert!(run(&["down"], name).status.success());
        assert_eq!(Machine::seen(name), before, "killed after {milliseconds} ms");
    }
}

#[test]
fn the_death_of_supervisor_or_reaper_is_the_end_of_the_lab() {
    if !root() {
        return;
    }
    let name = "clean-dead";
    let before = Machine::seen(name);
    for reaper in [false, true] {
        let up = run(&["up", "--nodes", "2", "--no-wait"], name);
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        let pid = supervisor(name).unwrap();
        kill(if reaper { parent(pid) } else { pid });
        until("nothing of the lab runs", || processes(name).is_empty());
        // Without reaper, files and cgroups are left to the next command.
        if reaper {
            assert!(run(&["down"], name).status.success());
        }
        until("nothing is left", || Machine::seen(name) == before);
    }
}
