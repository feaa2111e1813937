//! What do the commands about the datapath's tables ask and print?

use std::collections::BTreeMap;

use agent_api::{Client, Endpoint};
use anyhow::{Result, bail};

use crate::arguments::{BpfCommand, BpfPolicyCommand, CtCommand, IpcacheCommand, ListCommand, Output};
use crate::labels;
use crate::output::{emit, show};
use crate::tables;

/// `cilium-dbg bpf ...`
pub async fn run(client: &Client, command: BpfCommand) -> Result<()> {
    let maps = tables::open()?;
    let rows = |output: &Output, rows: BTreeMap<String, Vec<String>>, titles| {
        show(&rows, output, |rows| tables::two_columns(titles, rows))
    };
    match command {
        BpfCommand::Ct(CtCommand::List { which, time_diff, output }) => {
            if which != ["global"] {
                bail!("there is one table for all endpoints and one cluster: want \"global\", found {which:?}");
            }
            let all = tables::connections(&maps, time_diff)?;
            show(&all, &output, |all| all.iter().map(|line| format!("{line}\n")).collect())
        }
        BpfCommand::Endpoint(ListCommand::List(output)) => {
            rows(&output, tables::endpoints(&maps)?, ("IP ADDRESS", "LOCAL ENDPOINT INFO"))
        }
        BpfCommand::Ipcache(IpcacheCommand::List(output)) => {
            rows(&output, tables::ipcache(&maps)?, ("IP PREFIX/ADDRESS", "IDENTITY"))
        }
        BpfCommand::Ipcache(IpcacheCommand::Get { address }) => {
            let all = tables::ipcache(&maps)?;
            let containing = all.iter().filter_map(|(prefix, value)| {
                let net: ipnet::IpNet = prefix.parse().ok()?;
                net.contains(&address).then(|| (net.prefix_len(), prefix, value))
            });
            match containing.max_by_key(|(length, ..)| *length) {
                Some((_, prefix, value)) => emit(&format!("{address} maps to {prefix} {}\n", value.join(" "))),
                None => bail!("{address} maps to no identity"),
            }
        }
        BpfCommand::Lb(ListCommand::List(output)) => {
            rows(&output, tables::services(&maps)?, ("SERVICE ADDRESS", "BACKEND ADDRESS (REVNAT_ID) (SLOT)"))
        }
        BpfCommand::Metrics(ListCommand::List(output)) => {
            let rows = tables::metrics(&maps)?;
            show(&rows, &output, |rows| tables::metrics_text(rows))
        }
        BpfCommand::Policy(command) => policy(client, &maps, command).await,
    }
}

async fn policy(client: &Client, maps: &bpf::Maps, command: BpfPolicyCommand) -> Result<()> {
    let (endpoint, numeric, all, output) = match command {
        BpfPolicyCommand::Get { endpoint, numeric, all, output } => (endpoint, numeric, all, output),
        BpfPolicyCommand::List { numeric, output } => (None, numeric, true, output),
    };
    let known = if numeric { None } else { labels(client).await.ok() };
    if all {
        return every_policy(client, maps, known.as_ref(), &output).await;
    }
    let Some(endpoint) = endpoint else { bail!("want an endpoint, or --all") };
    let id: u32 = match endpoint.parse() {
        Ok(id) => id,
        Err(_) => client.get::<Endpoint>(&format!("/v1/endpoint/{endpoint}")).await?.id,
    };
    let (_, rows) = rows_of(maps, id)?;
    show(&rows, &output, |rows| tables::policy(rows, known.as_ref()))
}

/// Those that are locked down are listed with nothing that is allowed.
async fn every_policy(
    client: &Client,
    maps: &bpf::Maps,
    known: Option<&BTreeMap<u32, Vec<String>>>,
    output: &Output,
) -> Result<()> {
    let endpoints: Vec<Endpoint> = client.get("/v1/endpoint").await?;
    let subject = |e: &&Endpoint| e.status.identity.as_ref().is_none_or(|i| i.id != abi::identity::HOST);
    let mut all = BTreeMap::new();
    for endpoint in endpoints.iter().filter(subject) {
        all.insert(endpoint.id, rows_of(maps, endpoint.id)?);
    }
    show(&all, output, |all| {
        all.iter()
            .map(|(id, (slot, rows))| format!("Endpoint ID: {id}\nSlot: {slot}\n\n{}\n\n", tables::policy(rows, known)))
            .collect()
    })
}

/// The endpoint's slot and what it holds.
fn rows_of(maps: &bpf::Maps, endpoint: u32) -> Result<(u32, Vec<tables::PolicyRow>)> {
    let policy = maps.ep_policy.get(&endpoint)?.unwrap_or_default();
    let slot = maps.policy.dump(policy.slot)?;
    Ok((policy.slot, tables::policy_rows(&slot.unwrap_or_default())))
}
