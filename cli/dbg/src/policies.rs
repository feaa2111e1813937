//! Which policies does the agent have, and do all endpoints have them?

use std::time::{Duration, Instant};

use agent_api::{Client, Endpoint, Policy};
use anyhow::{Result, bail};

use crate::arguments::PolicyCommand;
use crate::lists;
use crate::output::{emit, show};

/// `cilium-dbg policy ...`
pub async fn run(client: &Client, command: PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::Get(output) => {
            let policy: Policy = client.get("/v1/policy").await?;
            match output.output {
                Some(_) => show(&policy, &output, |_| String::new()),
                // JSON in lines: what a terminal would obey is escaped in it, and the ends of lines must stay.
                None => emit(&format!("{}\nRevision: {}\n", policy.policy, policy.revision)),
            }
        }
        PolicyCommand::Selectors { output, verbose } => {
            let all: Vec<agent_api::Selector> = client.get("/v1/policy/selectors").await?;
            show(&all, &output, |all| lists::selectors(all, verbose))
        }
        PolicyCommand::Wait { revision, sleep_time, fail_wait_time, max_wait_time } => {
            let patience = [fail_wait_time, max_wait_time].map(Duration::from_secs);
            wait(client, revision, Duration::from_secs(sleep_time), patience).await
        }
    }
}

/// An endpoint without policy (the node itself) does not count. One that cannot have its policy is waited for less long.
async fn wait(client: &Client, revision: u64, pause: Duration, [failed, most]: [Duration; 2]) -> Result<()> {
    let started = Instant::now();
    loop {
        let all: Vec<Endpoint> = client.get("/v1/endpoint").await?;
        let with_policy = all.iter().filter(|e| e.status.identity.as_ref().is_none_or(|i| i.id != abi::identity::HOST));
        let late: Vec<u32> =
            with_policy.filter(|e| e.status.policy.realized.policy_revision < revision).map(|e| e.id).collect();
        if late.is_empty() {
            return Ok(());
        }
        let locked: Vec<u32> = all.iter().filter(|e| e.status.state == "not-ready").map(|e| e.id).collect();
        if started.elapsed() >= failed && !locked.is_empty() {
            bail!("endpoints {locked:?} have no policy after {} seconds: see cilium-dbg status", failed.as_secs());
        }
        if started.elapsed() >= most {
            bail!("timeout waiting for revision {revision}: endpoints {late:?} are not there yet");
        }
        tokio::time::sleep(pause).await;
    }
}
