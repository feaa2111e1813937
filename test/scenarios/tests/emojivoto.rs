//! Is what the services of emojivoto say to each other seen, and judged, call by call (E1)?

use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde_json::Value;
use std::process::ExitCode;
use std::time::Duration;
use testbed::{Lab, Plan, eventually, trials};

const PLAN: Plan<'static> = Plan { name: "emojivoto", nodes: 3, options: &[] };
const WORKLOADS: &str = include_str!("../../../examples/emojivoto/workloads.yaml");
const VISIBILITY: &str = include_str!("../../../examples/emojivoto/01-l7-visibility.yaml");
const SOME_VOTES: &str = include_str!("../../../examples/emojivoto/02-only-some-votes.yaml");
const NAMESPACE: &str = "emojivoto";
const APPS: [&str; 4] = ["emoji", "vote-bot", "voting", "web"];
const WITHIN: Duration = Duration::from_secs(30);

/// A pod that emojivoto has nothing to do with.
const STRANGER: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: stranger}\nspec:\n  containers: [{name: main, image: echo, env: [{name: \
                        PORTS, value: \"8080\"}]}]\n";

fn main() -> ExitCode {
    trials::run(
        &PLAN,
        prepare,
        &[
            ("e1_03_the_four_run_and_the_bot_votes", e1_03),
            ("e1_05_without_policy_no_requests_are_seen", e1_05),
            ("e1_06_calls_from_bot_to_web_and_from_web_to_voting_are_seen", e1_06),
            ("e1_07_dns_and_http_ports_go_through_the_proxy", e1_07),
            ("e1_08_other_ports_namespaces_and_the_world_are_denied", e1_08),
            ("e1_09_ingress_is_not_restricted", e1_09),
            ("e1_10_what_is_no_http_does_not_pass_and_grpc_does", e1_10),
            ("e1_11_what_is_dropped_is_seen", e1_11),
            ("e1_13_calls_of_grpc_are_allowed_one_by_one", e1_13),
        ],
    )
}

fn prepare(lab: &Lab) -> Result<()> {
    // a namespace has its service accounts a moment after it was made
    eventually(WITHIN, "workloads applied", || lab.apply(WORKLOADS))?;
    eventually(WITHIN, "a stranger", || lab.apply(STRANGER))?;
    lab.rolled_out(NAMESPACE)?;
    lab.kubectl(&["wait", "--for=condition=Ready", "pod/stranger", "--timeout=60s"])?.ok()?;
    Ok(())
}

/// The pod of one of the four.
fn pod(lab: &Lab, app: &str) -> Result<String> {
    let label = if app == "vote-bot" { "app=vote-bot".to_owned() } else { format!("app={app}-svc") };
    lab.pod(NAMESPACE, &label)
}

/// What curl prints in a pod of the namespace.
fn curl(lab: &Lab, app: &str, words: &str) -> Result<String> {
    let script = format!("curl -s --max-time 3 {words}; true");
    lab.exec(NAMESPACE, &pod(lab, app)?, &["sh", "-c", &script])?.ok()
}

/// Code of the answer; 0 is none.
fn code(lab: &Lab, app: &str, words: &str) -> Result<u16> {
    let text = curl(lab, app, &format!("-o /dev/null -w '%{{http_code}}' {words}"))?;
    text.trim().parse().with_context(|| format!("a code, found {text:?}"))
}

/// Waits until `hubble observe` of the namespace has a line like each of these.
fn seen(lab: &Lab, words: &[&str], patterns: &[&str]) -> Result<String> {
    let words = [&["observe", "--namespace", NAMESPACE, "--last", "200"], words].concat();
    let patterns: Vec<Regex> = patterns.iter().map(|pattern| Regex::new(pattern)).collect::<Result<_, _>>()?;
    eventually(WITHIN, &words.join(" "), || {
        let text = lab.hubble(&words)?.ok()?;
        for pattern in &patterns {
            ensure!(text.lines().any(|line| pattern.is_match(line)), "no line like {pattern} in\n{text}");
        }
        Ok(text)
    })
}

fn e1_03(lab: &Lab) -> Result<()> {
    let table = lab.kubectl(&["get", "pod", "-n", NAMESPACE])?.ok()?;
    for app in APPS {
        let row = table.lines().find(|line| line.starts_with(app)).with_context(|| table.clone())?;
        let words: Vec<&str> = row.split_whitespace().collect();
        ensure!(words[1..4] == ["1/1", "Running", "0"], "{table}");
    }
    eventually(WITHIN, "votes that count, and votes for the doughnut that do not", || {
        let log = lab.kubectl(&["logs", "-n", NAMESPACE, &pod(lab, "vote-bot")?])?.ok()?;
        ensure!(log.lines().any(|line| line.contains("voted") && line.contains("status=200")), "{log}");
        Ok(())
    })?;
    ensure!(code(lab, "vote-bot", "'http://web-svc/api/vote?choice=:doughnut:'")? == 500);
    ensure!(code(lab, "vote-bot", "'http://web-svc/api/vote?choice=:pizza:'")? == 200);
    let board = curl(lab, "vote-bot", "http://web-svc/api/leaderboard")?;
    let board: Vec<Value> = serde_json::from_str(&board).with_context(|| board.clone())?;
    let votes = board.iter().find(|row| row["shortcode"] == ":pizza:").context("pizza")?["votes"].as_u64();
    ensure!(votes >= Some(1) && board.iter().all(|row| row["shortcode"] != ":doughnut:"), "{board:?}");
    let metrics = curl(lab, "vote-bot", "http://voting-svc:8801/metrics")?;
    ensure!(metrics.contains("emojivoto_votes_total{emoji=\":pizza:\"} "), "{metrics}");
    Ok(())
}

fn e1_05(lab: &Lab) -> Result<()> {
    seen(lab, &["--to-port", "8080"], &["FORWARDED"])?;
    let text = lab.hubble(&["observe", "--namespace", NAMESPACE, "--type", "l7", "--last", "20"])?.ok()?;
    ensure!(text.trim().is_empty(), "{text}");
    Ok(())
}

fn e1_06(lab: &Lab) -> Result<()> {
    lab.apply(VISIBILITY)?;
    seen(
        lab,
        &["--protocol", "http"],
        &[
            r"emojivoto/vote-bot-\S+ \(ID:\d+\) -> emojivoto/web-\S+:8080 \(ID:\d+\) http-request FORWARDED \(HTTP/1.1 GET http://web-svc.emojivoto(:80)?/api/vote\?choice=:\w+:\)",
            r"emojivoto/web-\S+ \(ID:\d+\) -> emojivoto/emoji-\S+:8080 \(ID:\d+\) http-request FORWARDED \(HTTP/2 POST http://emoji-svc.emojivoto:8080/emojivoto.v1.EmojiService/FindByShortcode\)",
            r"emojivoto/web-\S+ \(ID:\d+\) -> emojivoto/voting-\S+:8080 \(ID:\d+\) http-request FORWARDED \(HTTP/2 POST http://voting-svc.emojivoto:8080/emojivoto.v1.VotingService/Vote\w+\)",
            r"emojivoto/web-\S+ \(ID:\d+\) <- emojivoto/voting-\S+:8080 \(ID:\d+\) http-response FORWARDED \(HTTP/2 200 \d+ms \(POST http://voting-svc",
        ],
    )?;
    // what the site says of web: its calls to voting, and none that anybody else made
    let from = format!("{NAMESPACE}/{}", pod(lab, "web")?);
    let calls = lab.hubble(&["observe", "--from-pod", &from, "--type", "l7", "--last", "50"])?.ok()?;
    ensure!(calls.lines().any(|line| line.contains("VotingService/")), "{calls}");
    ensure!(calls.lines().all(|line| line.contains("emojivoto/web-")), "{calls}");
    let done = code(lab, "vote-bot", "'http://web-svc/api/vote?choice=:doughnut:'")?;
    ensure!(done == 500, "votes for the doughnut still fail: {done}");
    seen(lab, &["--protocol", "http"], &["VotingService/VoteDoughnut", r"http-response FORWARDED \(HTTP/1.1 500 "])?;
    Ok(())
}

/// Goes on with the policy of [`e1_06`].
fn e1_07(lab: &Lab) -> Result<()> {
    let voting = lab.pod_ip(NAMESPACE, &pod(lab, "voting")?)?;
    // nobody listens there: it is the proxy that takes the connection and says so
    ensure!(code(lab, "web", &format!("http://{voting}:8081/"))? == 503);
    ensure!(code(lab, "web", &format!("http://{voting}:80/"))? == 503);
    ensure!(lab.connects(NAMESPACE, &pod(lab, "web")?, "10.96.0.10", 53)?, "DNS by TCP");
    seen(
        lab,
        &["--type", "policy-verdict", "--verdict", "REDIRECTED"],
        &[
            r":53 .*policy-verdict:L4-Only EGRESS ALLOWED \(UDP\)",
            r":53 .*policy-verdict:L4-Only EGRESS ALLOWED \(TCP Flags: SYN\)",
            r":8080 .*policy-verdict:L3-L4 EGRESS ALLOWED \(TCP Flags: SYN\)",
            r":8081 .*policy-verdict:L3-L4 EGRESS ALLOWED \(TCP Flags: SYN\)",
            r":80 .*policy-verdict:L3-L4 EGRESS ALLOWED \(TCP Flags: SYN\)",
        ],
    )?;
    seen(
        lab,
        &["--protocol", "dns"],
        &[
            r"dns-request proxy FORWARDED \(DNS Query web-svc.emojivoto.svc.cluster.local. A\)",
            r#"dns-response proxy FORWARDED \(DNS Answer "10.96.\d+.\d+" TTL: 30 \(Proxy web-svc.emojivoto.svc.cluster.local. A\)\)"#,
        ],
    )?;
    Ok(())
}

/// Goes on with the policy of [`e1_06`].
fn e1_08(lab: &Lab) -> Result<()> {
    let web = pod(lab, "web")?;
    let (voting, stranger) = (lab.pod_ip(NAMESPACE, &pod(lab, "voting")?)?, lab.pod_ip("default", "stranger")?);
    for (host, port) in [(voting.as_str(), 8801), (stranger.as_str(), 8080), ("192.0.2.1", 80)] {
        ensure!(!lab.connects(NAMESPACE, &web, host, port)?, "{host}:{port}");
    }
    for name in ["kubernetes.default", "no.such.name.example"] {
        // a name that there is not is an answer as well; what counts is that it was asked for
        lab.exec(NAMESPACE, &web, &["getent", "ahostsv4", name])?;
        let pattern = format!(r"dns-request proxy FORWARDED \(DNS Query {name}");
        seen(lab, &["--protocol", "dns"], &[&pattern])?;
    }
    for words in ["-X DELETE", "-X OPTIONS", "-H 'Host: any.example'", "-X PROPFIND"] {
        let found = code(lab, "vote-bot", &format!("{words} http://web-svc/any/path"))?;
        ensure!(found == 404, "{words}: it is the server that answers, found {found}");
    }
    Ok(())
}

/// Goes on with the policy of [`e1_06`].
fn e1_09(lab: &Lab) -> Result<()> {
    for app in APPS {
        let endpoint = lab.get(&["-n", NAMESPACE, "ciliumendpoint", &pod(lab, app)?])?;
        let policy = &endpoint["status"]["policy"];
        let enforcing = |direction: &str| policy[direction]["enforcing"].as_bool();
        ensure!((enforcing("ingress"), enforcing("egress")) == (Some(false), Some(true)), "{app}: {policy}");
    }
    let web = lab.pod_ip(NAMESPACE, &pod(lab, "web")?)?;
    let voting = lab.pod_ip(NAMESPACE, &pod(lab, "voting")?)?;
    for (host, port) in [(web.as_str(), 8080), (voting.as_str(), 8801)] {
        ensure!(lab.connects("default", "stranger", host, port)?, "{host}:{port}");
    }
    Ok(())
}

/// Goes on with the policy of [`e1_06`].
fn e1_10(lab: &Lab) -> Result<()> {
    let voting = lab.pod_ip(NAMESPACE, &pod(lab, "voting")?)?;
    let script = format!("exec 3<>/dev/tcp/{voting}/8080; printf 'SSH-2.0-Client_1.0\\r\\n' >&3; timeout 3 cat <&3");
    let said = lab.exec(NAMESPACE, &pod(lab, "web")?, &["bash", "-c", &script])?;
    ensure!(said.stdout.starts_with("HTTP/1.1 400 "), "the proxy answers, and not the server: {said:?}");
    ensure!(code(lab, "vote-bot", "'http://web-svc/api/vote?choice=:tada:'")? == 200, "gRPC passes");
    seen(
        lab,
        &["--protocol", "http"],
        &[r"HTTP/2 POST http://voting-svc.emojivoto:8080/emojivoto.v1.VotingService/VoteTada"],
    )?;
    Ok(())
}

/// Goes on with what [`e1_08`] tried.
fn e1_11(lab: &Lab) -> Result<()> {
    seen(
        lab,
        &["--verdict", "DROPPED"],
        &[
            r"emojivoto/web-\S+ .*<> emojivoto/voting-\S+:8801 .*policy-verdict:none EGRESS DENIED \(TCP Flags: SYN\)",
            r"emojivoto/web-\S+ .*<> default/stranger:8080 .*Policy denied DROPPED \(TCP Flags: SYN\)",
            r"emojivoto/web-\S+ .*<> 192.0.2.1:80 \(world\) Policy denied DROPPED \(TCP Flags: SYN\)",
        ],
    )
    .map(drop)
}

/// Both sides ask: the policy of [`e1_06`] at web, one that knows calls at voting.
fn e1_13(lab: &Lab) -> Result<()> {
    lab.apply(SOME_VOTES)?;
    let vote = |choice: &str| {
        let url = format!("'http://web-svc/api/vote?choice=:{choice}:'");
        let text = curl(lab, "vote-bot", &format!("-w '%{{http_code}}' {url}"))?;
        Ok::<_, anyhow::Error>(text)
    };
    eventually(WITHIN, "a vote for beer is denied", || {
        let said = vote("beer")?;
        ensure!(said.starts_with("rpc error: Access denied") && said.ends_with("500"), "{said}");
        Ok(())
    })?;
    for choice in ["pizza", "tada"] {
        let said = vote(choice)?;
        ensure!(said == "200", "{choice}: {said}");
    }
    ensure!(curl(lab, "vote-bot", "http://web-svc/api/leaderboard")?.contains(":pizza:"), "results may be read");
    seen(
        lab,
        &["--protocol", "http"],
        &[
            r"emojivoto/web-\S+ .*-> emojivoto/voting-\S+:8080 .*http-request DROPPED \(HTTP/2 POST http://voting-svc.emojivoto:8080/emojivoto.v1.VotingService/VoteBeer\)",
            r"http-request FORWARDED \(HTTP/2 POST http://voting-svc.emojivoto:8080/emojivoto.v1.VotingService/VotePizza\)",
        ],
    )?;
    let stranger =
        lab.exec("default", "stranger", &["curl", "-s", "--max-time", "2", "http://voting-svc.emojivoto:8080/"])?;
    ensure!(stranger.code != 0, "who is not web does not come in: {stranger:?}");
    lab.kubectl(&["-n", NAMESPACE, "delete", "cnp", "only-some-votes"])?.ok()?;
    eventually(WITHIN, "beer again", || {
        let said = vote("beer")?;
        ensure!(said == "200", "{said}");
        Ok(())
    })
}
