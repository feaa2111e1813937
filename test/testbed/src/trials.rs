//! Runs named trials one after the other on one lab, and takes it down whatever happens.

use crate::{Lab, Plan};
use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

/// A test: its name, which begins with the number of the expectation, and what it does.
pub type Named = (&'static str, fn(&Lab) -> Result<()>);

/// Brings the lab up, prepares it, runs the trials in their order and reports as `cargo test` does.
///
/// The lab comes up with the first trial that is to run, so that listing or filtering costs nothing.
pub fn run(plan: &'static Plan<'static>, prepare: fn(&Lab) -> Result<()>, trials: &[Named]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let lab: Arc<Mutex<Option<Result<Lab, String>>>> = Arc::default();
    let wrapped = trials.iter().map(|&(name, trial)| {
        let lab = lab.clone();
        Trial::test(name, move || {
            let mut slot = lab.lock().map_err(|_| "an earlier trial panicked")?;
            let lab = slot.get_or_insert_with(|| bring_up(plan, prepare)).as_ref().map_err(String::as_str)?;
            trial(lab).map_err(|e| format!("{e:#}\n{}", surroundings(lab)).into())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, wrapped.collect());
    // dropped here and not at exit, which would skip it
    drop(lab.lock().map(|mut slot| slot.take()));
    conclusion.exit_code()
}

fn bring_up(plan: &Plan, prepare: fn(&Lab) -> Result<()>) -> Result<Lab, String> {
    let lab = Lab::up(plan).map_err(|e| format!("{e:#}"))?;
    match prepare(&lab) {
        Ok(()) => Ok(lab),
        Err(e) => Err(format!("preparing the lab: {e:#}\n{}", surroundings(&lab))),
    }
}

/// What a person would look at first when a trial failed.
fn surroundings(lab: &Lab) -> String {
    let looks: &[&[&str]] = &[
        &["get", "pods", "-A", "-o", "wide"],
        &["get", "cnp,ccnp,netpol", "-A"],
        &["get", "events", "-A", "--field-selector", "type=Warning"],
    ];
    let mut text = String::new();
    for look in looks {
        let seen = lab.kubectl(look).map(|r| r.stdout + &r.stderr).unwrap_or_else(|e| format!("{e:#}"));
        text.push_str(&format!("--- kubectl {}\n{seen}", look.join(" ")));
    }
    let flows =
        lab.hubble(&["observe", "--last", "20"]).map(|r| r.stdout + &r.stderr).unwrap_or_else(|e| e.to_string());
    text + "--- hubble observe --last 20\n" + &flows + &agents(lab)
}

/// What each agent logged, and what its datapath counts and has.
fn agents(lab: &Lab) -> String {
    let mut text = String::new();
    for agent in lab.pods("kube-system", "k8s-app=cilium").unwrap_or_default() {
        let looks: &[&[&str]] = &[
            &["logs", &agent, "-c", "cilium-agent", "--tail", "15"],
            &["exec", &agent, "-c", "cilium-agent", "--", "cilium-dbg", "bpf", "metrics", "list"],
            &["exec", &agent, "-c", "cilium-agent", "--", "cilium-dbg", "service", "list"],
        ];
        for look in looks {
            let seen = lab.kubectl(&[&["-n", "kube-system"], *look].concat());
            let seen = seen.map(|r| r.stdout + &r.stderr).unwrap_or_else(|e| format!("{e:#}"));
            text.push_str(&format!("--- kubectl {}\n{seen}", look.join(" ")));
        }
    }
    text
}
