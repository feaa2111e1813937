//! `cilium-dbg fqdn`: which addresses do names stand for, and why?

use std::fmt::Write;
use std::io::{BufRead, IsTerminal};

use agent_api::{CacheQuery, Client, DnsLookup, NameManager, NameReason};
use anyhow::{Context, Result, bail};

use crate::arguments::{FqdnCacheCommand, FqdnCommand, Output};
use crate::output::{Format, emit, show};
use crate::tabwriter::align;

/// The command.
pub async fn run(client: &Client, command: FqdnCommand) -> Result<()> {
    match command {
        FqdnCommand::Cache(FqdnCacheCommand::List { endpoint, matchpattern, source, output }) => {
            let query = CacheQuery { endpoint, matchpattern, source, address: None };
            show(&client.name_cache(&query).await?, &output, |found| cache(found))
        }
        FqdnCommand::Cache(FqdnCacheCommand::Clean { force, matchpattern }) => {
            let query = CacheQuery { matchpattern, ..CacheQuery::default() };
            if !force && !confirmed(&client.name_cache(&query).await?)? {
                bail!("nothing was deleted");
            }
            client.clean_names(&query).await?;
            emit("FQDN proxy cache cleared\n")
        }
        FqdnCommand::Names => {
            let names: NameManager = client.get("/v1/fqdn/names").await?;
            show(&names, &Output { output: Some(Format::Json) }, |_| String::new())
        }
        FqdnCommand::Why { address, pod, endpoint, output } => {
            let pod = pod.map(|pod| if pod.contains('/') { pod } else { format!("default/{pod}") });
            let endpoint = endpoint.or(pod.map(|pod| format!("pod-name:{pod}")));
            let query = CacheQuery { endpoint, address: Some(address.clone()), ..CacheQuery::default() };
            let found = client.why_name(&query).await?;
            show(&found, &output, |found| why(&address, found))
        }
    }
}

fn confirmed(found: &Vec<DnsLookup>) -> Result<bool> {
    emit("Following cache entries are going to be deleted:\n")?;
    show(found, &Output { output: None }, |found| cache(found))?;
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked whether to go on: use --force");
    }
    emit("Do you want to continue? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn cache(found: &[DnsLookup]) -> String {
    let mut text = String::from("Endpoint\tSource\tFQDN\tTTL\tExpirationTime\tIPs\t\n");
    for one in found {
        let DnsLookup { endpoint_id, source, fqdn, ttl, expiration_time, ips, .. } = one;
        let _ = writeln!(text, "{endpoint_id}\t{source}\t{fqdn}\t{ttl}\t{expiration_time}\t{}\t", ips.join(","));
    }
    align(&text, 5, 3)
}

fn why(address: &str, found: &[NameReason]) -> String {
    if found.is_empty() {
        return format!("No answer of DNS gave {address} to any endpoint of this node.\n");
    }
    let mut text = String::new();
    for NameReason { lookup, rules } in found {
        let DnsLookup { fqdn, endpoint_id, lookup_time, ttl, expiration_time, source, .. } = lookup;
        let _ = writeln!(text, "{address} is {fqdn}");
        let _ = writeln!(text, "  answer:  at {lookup_time} to endpoint {endpoint_id}, for {ttl} s");
        let held = if source == "connection" { ", and since then while a connection uses it" } else { "" };
        let _ = writeln!(text, "  until:   {expiration_time}{held}");
        if rules.is_empty() {
            let _ = writeln!(text, "  rules:   none for this endpoint speaks of the name");
        }
        for (at, rule) in rules.iter().enumerate() {
            let _ = writeln!(text, "  {}{rule}", if at == 0 { "rules:   " } else { "         " });
        }
    }
    let (denied, other): (Vec<&NameReason>, Vec<_>) =
        found.iter().partition(|one| one.rules.iter().any(|rule| is_denial(rule)));
    let names = |all: &[&NameReason]| all.iter().map(|one| one.lookup.fqdn.as_str()).collect::<Vec<_>>().join(", ");
    if !denied.is_empty() {
        let all = if other.is_empty() { String::new() } else { format!(", whatever allows {}", names(&other)) };
        let _ = writeln!(text, "{address} is denied as {}{all}", names(&denied));
    }
    text
}

fn is_denial(rule: &str) -> bool {
    rule.contains(": egressDeny[")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lookup() -> DnsLookup {
        DnsLookup {
            endpoint_id: 7,
            fqdn: "ifconfig.me.".into(),
            ips: vec!["34.117.118.44".into(), "34.117.118.45".into()],
            lookup_time: "2026-01-01T00:00:00.000Z".into(),
            ttl: 30,
            expiration_time: "2026-01-01T00:00:30.000Z".into(),
            source: "lookup".into(),
        }
    }

    #[test]
    fn the_cache_is_a_table() {
        let lines: Vec<String> = cache(&[lookup()]).lines().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(lines[0], "Endpoint   Source   FQDN           TTL   ExpirationTime             IPs");
        assert_eq!(
            lines[1],
            "7          lookup   ifconfig.me.   30    2026-01-01T00:00:30.000Z   34.117.118.44,34.117.118.45"
        );
    }

    #[test]
    fn a_reason_names_answer_time_and_rules() {
        let rules = vec!["CiliumNetworkPolicy default/client: egress[1] ifconfig.me".into(), "second".into()];
        let text = why("34.117.118.44", &[NameReason { lookup: lookup(), rules }]);
        assert!(text.starts_with(
            "34.117.118.44 is ifconfig.me.\n  answer:  at 2026-01-01T00:00:00.000Z to endpoint 7, for 30 s\n"
        ));
        assert!(
            text.ends_with("  rules:   CiliumNetworkPolicy default/client: egress[1] ifconfig.me\n           second\n")
        );
        assert!(why("1.1.1.1", &[]).contains("No answer"));
        assert!(!text.contains("denied"));
    }

    #[test]
    fn an_address_that_a_denied_name_shares_is_told_as_denied() {
        let rule = |text: &str| vec![format!("CiliumNetworkPolicy default/client: {text}")];
        let evil = NameReason { lookup: lookup(), rules: rule("egressDeny[0] ifconfig.me") };
        let good = DnsLookup { fqdn: "good.example.".into(), source: "connection".into(), ..lookup() };
        let good = NameReason { lookup: good, rules: rule("egress[0] *.example") };
        let text = why("34.117.118.44", &[good, evil.clone()]);
        assert!(text.contains("and since then while a connection uses it"));
        assert!(text.ends_with("34.117.118.44 is denied as ifconfig.me., whatever allows good.example.\n"), "{text}");
        assert!(why("34.117.118.44", &[evil]).ends_with("34.117.118.44 is denied as ifconfig.me.\n"));
    }
}
