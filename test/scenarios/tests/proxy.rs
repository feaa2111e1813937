//! Do connections that policies redirect go through the proxy, whoever asks whom, and is nothing let through without it?

#[path = "proxy/faults.rs"]
mod faults;
#[path = "proxy/node.rs"]
mod node;
#[path = "proxy/secrets.rs"]
mod secrets;

use anyhow::{Context, Result, ensure};
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;
use testbed::{Lab, Plan, eventually, processes, trials};

const PLAN: Plan<'static> = Plan { name: "proxy", nodes: 2, options: OPTIONS };
const OPTIONS: &[&str] = &[
    "--ipv6",
    "--world",
    WORLD,
    "--config",
    "hubble-redact-enabled=true",
    "--config",
    "hubble-redact-http-urlquery=true",
    "--config",
    "hubble-redact-http-headers-allow=traceparent",
];
const WORLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/workloads/oke-world.yaml");
const WORKLOADS: &str = include_str!("../workloads/proxy.yaml");
const WITHIN: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    trials::run(
        &PLAN,
        prepare,
        &[
            ("ingress_rules_judge_requests_and_the_server_sees_the_client", ingress),
            ("egress_rules_judge_requests_near_far_and_into_the_world", egress),
            ("both_sides_ask_one_after_the_other", both),
            ("what_was_said_is_told", told),
            ("requests_to_kafka_brokers_are_judged_and_told", kafka),
            ("a_changed_rule_counts_for_the_next_request_of_a_running_connection", changed),
            ("agents_killed_under_load_cost_no_request", killed),
            ("proxies_taken_over_under_load_cost_no_request", faults::taken_over),
            ("a_proxy_killed_under_load_lets_nothing_through_and_is_back_at_once", faults::proxy_killed),
            ("a_full_disk_stops_neither_agent_nor_proxy_and_is_told", faults::disk_full),
            ("a43_secrets_reach_the_proxy_change_fail_closed_and_are_shown_nowhere", secrets::headers),
            ("tls_ends_at_the_proxy_with_a_secret_and_not_without", secrets::tls),
            ("e1_12_flows_leave_out_query_and_headers", secrets::redacted),
            ("the_agent_tells_what_the_proxy_does", node::told),
            ("ports_of_clients_and_of_the_proxy_do_not_meet", node::ports),
            ("tables_made_anew_are_opened_by_the_running_proxy", node::anew),
            ("z_without_the_proxy_what_is_redirected_is_refused_and_nothing_else", without),
        ],
    )
}

fn prepare(lab: &Lab) -> Result<()> {
    eventually(WITHIN, "workloads applied", || lab.apply(WORKLOADS))?;
    for pod in ["server", "near", "far"] {
        lab.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"])?.ok()?;
    }
    Ok(())
}

/// Both addresses of a pod, as they stand in a URL.
fn hosts(lab: &Lab, pod: &str) -> Result<Vec<String>> {
    let object = lab.get(&["pod", pod])?;
    let all = object["status"]["podIPs"].as_array().context("status.podIPs")?;
    let text = |a: &serde_json::Value| a["ip"].as_str().map(String::from).context("an address");
    let addresses: Vec<String> = all.iter().map(text).collect::<Result<_>>()?;
    ensure!(addresses.len() == 2, "both families, found {addresses:?}");
    Ok(addresses.into_iter().map(|a| if a.contains(':') { format!("[{a}]") } else { a }).collect())
}

/// Body and code of the answer; code 0: there was none.
fn get(lab: &Lab, from: &str, url: &str) -> Result<(String, u16)> {
    let run =
        lab.exec("default", from, &["sh", "-c", &format!("curl -s --max-time 3 -w '\n%{{http_code}}' '{url}'; true")])?;
    let text = run.ok()?;
    let (body, code) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
    Ok((body.to_owned(), code.parse().with_context(|| format!("a code, found {text:?}"))?))
}

/// Waits until a request is answered so; what the answer's body is.
fn expect(lab: &Lab, from: &str, url: &str, code: u16) -> Result<String> {
    eventually(WITHIN, &format!("{from} {url}: {code}"), || {
        let (body, found) = get(lab, from, url)?;
        ensure!(found == code, "{found} {body:?}");
        Ok(body)
    })
}

fn policy(subject: &str, section: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {subject}}}\nspec:\n  endpointSelector: {{matchLabels: \
         {{app: {subject}}}}}\n  {section}\n"
    )
}

/// Requests to port 8080 of anybody, with these paths.
fn asked(paths: &[&str]) -> String {
    policy("server", &format!("ingress:\n  - toPorts:\n    - {}", requests("8080", paths)))
}

fn asks(subject: &str, paths: &[&str]) -> String {
    policy(
        subject,
        &format!("egress:\n  - toPorts:\n    - {}\n    - {}", requests("8080", paths), requests("80", &["/"])),
    )
}

fn requests(port: &str, paths: &[&str]) -> String {
    let rules: Vec<String> = paths.iter().map(|path| format!("{{method: GET, path: {path:?}}}")).collect();
    format!("{{ports: [{{port: \"{port}\", protocol: TCP}}], rules: {{http: [{}]}}}}", rules.join(", "))
}

fn no_policies(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", "cnp", "--all"])?.ok()?;
    for host in hosts(lab, "server")? {
        for from in ["near", "far"] {
            expect(lab, from, &format!("http://{host}:8080/hostname"), 200)?;
        }
    }
    Ok(())
}

/// The answer names the client's own address.
fn sees(lab: &Lab, from: &str, host: &str, body: &str) -> Result<()> {
    let own = hosts(lab, from)?;
    let wanted =
        own.iter().find(|a| a.starts_with('[') == host.starts_with('[')).context("an address of the family")?;
    ensure!(body.starts_with(&format!("{wanted}:")), "{from} at {host}: the server sees {body}, not {wanted}");
    Ok(())
}

fn ingress(lab: &Lab) -> Result<()> {
    lab.apply(&asked(&["/clientip"]))?;
    for host in hosts(lab, "server")? {
        for from in ["near", "far"] {
            let denied = expect(lab, from, &format!("http://{host}:8080/hostname"), 403)?;
            ensure!(denied.trim_end() == "Access denied", "{denied:?}");
            let body = expect(lab, from, &format!("http://{host}:8080/clientip"), 200)?;
            sees(lab, from, &host, &body)?;
        }
    }
    no_policies(lab)
}

fn egress(lab: &Lab) -> Result<()> {
    for from in ["near", "far"] {
        lab.apply(&asks(from, &["/clientip"]))?;
        for host in hosts(lab, "server")? {
            expect(lab, from, &format!("http://{host}:8080/hostname"), 403)?;
            let body = expect(lab, from, &format!("http://{host}:8080/clientip"), 200)?;
            sees(lab, from, &host, &body)?;
        }
        expect(lab, from, "http://134.70.24.1/", 200)?;
        expect(lab, from, "http://134.70.24.1/other", 403)?;
    }
    no_policies(lab)
}

fn both(lab: &Lab) -> Result<()> {
    lab.apply(&asked(&["/clientip"]))?;
    for from in ["near", "far"] {
        lab.apply(&asks(from, &["/clientip", "/hostname"]))?;
        for host in hosts(lab, "server")? {
            expect(lab, from, &format!("http://{host}:8080/healthz"), 403)?;
            expect(lab, from, &format!("http://{host}:8080/hostname"), 403)?;
            let body = expect(lab, from, &format!("http://{host}:8080/clientip"), 200)?;
            sees(lab, from, &host, &body)?;
        }
    }
    no_policies(lab)
}

fn told(lab: &Lab) -> Result<()> {
    lab.apply(&asked(&["/clientip"]))?;
    let host = hosts(lab, "server")?.remove(0);
    expect(lab, "near", &format!("http://{host}:8080/hostname"), 403)?;
    expect(lab, "near", &format!("http://{host}:8080/clientip"), 200)?;
    eventually(WITHIN, "flows", || {
        let flows = lab.hubble(&["observe", "--type", "l7", "--to-pod", "default/server", "--last", "20"])?.ok()?;
        for wanted in [
            format!("http-request DROPPED (HTTP/1.1 GET http://{host}:8080/hostname)"),
            format!("http-request FORWARDED (HTTP/1.1 GET http://{host}:8080/clientip)"),
        ] {
            ensure!(flows.contains(&wanted), "{wanted} in {flows}");
        }
        let verdicts = lab
            .hubble(&[
                "observe",
                "--type",
                "policy-verdict",
                "--verdict",
                "REDIRECTED",
                "--to-pod",
                "default/server",
                "--last",
                "20",
            ])?
            .ok()?;
        ensure!(verdicts.contains("policy-verdict:L4-Only INGRESS ALLOWED"), "{verdicts}");
        let traces = lab.hubble(&["observe", "--type", "trace:to-proxy", "--last", "20"])?.ok()?;
        ensure!(traces.contains("to-proxy FORWARDED"), "{traces}");
        Ok(())
    })?;
    let agent = lab.pods("kube-system", "k8s-app=cilium")?;
    let statuses: Vec<String> =
        agent.iter().map(|pod| lab.exec("kube-system", pod, &["cilium-dbg", "status"])?.ok()).collect::<Result<_>>()?;
    let says = |wanted: &str| statuses.iter().any(|status| status.contains(wanted));
    ensure!(says("1 redirects active on ports 10000-20000, Envoy: external"), "{statuses:?}");
    no_policies(lab)
}

/// A Produce request of version 3 about this topic, as `printf` writes it.
fn produce(topic: &str) -> String {
    let text = |text: &str| [&u16::try_from(text.len()).unwrap_or(0).to_be_bytes()[..], text.as_bytes()].concat();
    let header = [&[0, 0, 0, 3, 0, 0, 0, 7][..], &text("lab")].concat();
    // A transaction, acknowledgements of one, 1000 ms, one topic with one partition with three bytes of records.
    let body = [
        &text("t")[..],
        &[0, 1, 0, 0, 3, 232, 0, 0, 0, 1],
        &text(topic),
        &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3],
    ];
    let frame = [header, body.concat()].concat();
    let length = u32::try_from(frame.len()).unwrap_or(0).to_be_bytes();
    length.iter().chain(&frame).map(|byte| format!("\\{byte:03o}")).collect()
}

/// The server is no broker: what is denied is answered without one, and what is allowed is told.
fn kafka(lab: &Lab) -> Result<()> {
    let rules = "{ports: [{port: \"8080\", protocol: TCP}], rules: {kafka: [{role: produce, topic: orders}]}}";
    lab.apply(&policy("server", &format!("ingress:\n  - toPorts:\n    - {rules}")))?;
    let host = hosts(lab, "server")?.remove(0);
    for topic in ["secrets", "orders"] {
        let said = format!("kafka-request {}", if topic == "orders" { "FORWARDED" } else { "DROPPED" });
        let wanted = format!("{said} (Kafka request produce correlation id 7 topic '{topic}')");
        let ask = format!(
            "exec 3<>/dev/tcp/{host}/8080; printf '{}' >&3; timeout 1 cat <&3 | tr -cd a-z; true",
            produce(topic)
        );
        eventually(WITHIN, &wanted, || {
            let answer = lab.exec("default", "near", &["bash", "-c", &ask])?.ok()?;
            // The answer to a denied request names its topic; the server's own is none of Kafka's, and ends it.
            ensure!((answer == "secrets") == (topic == "secrets"), "{answer:?}");
            let flows =
                lab.hubble(&["observe", "--protocol", "kafka", "--to-pod", "default/server", "--last", "20"])?.ok()?;
            ensure!(flows.contains(&wanted), "{wanted} in {flows}");
            Ok(())
        })?;
    }
    no_policies(lab)
}

fn changed(lab: &Lab) -> Result<()> {
    lab.apply(&asked(&["/clientip"]))?;
    let host = hosts(lab, "server")?.remove(0);
    expect(lab, "far", &format!("http://{host}:8080/hostname"), 403)?;
    let request =
        |path: &str| format!("printf 'GET {path} HTTP/1.1\\r\\nHost: {host}:8080\\r\\n\\r\\n' >&3; head -n 1 <&3");
    // one connection, of whose answers only the heads' first lines are looked at
    let script = format!(
        "exec 3<>/dev/tcp/{host}/8080; {}; sleep 4; {}; cat <&3 & sleep 1; kill $!",
        request("/clientip"),
        "printf 'GET /clientip HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&3"
    );
    let mut command = lab.command("kubectl");
    command.args(["exec", "far", "--", "bash", "-c", &script]);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start kubectl")?;
    std::thread::sleep(Duration::from_secs(1));
    lab.apply(&asked(&["/hostname"]))?;
    let output = running.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.starts_with("HTTP/1.1 200"), "the first request passes: {text}");
    ensure!(text.contains("HTTP/1.1 403"), "the second is judged by the new rule: {text}");
    no_policies(lab)
}

/// Requests one after the other for so many seconds: a line for each, with the answer's code.
fn knock(lab: &Lab, from: &str, url: &str, seconds: u32) -> Result<Child> {
    let script = format!(
        "end=$(($(date +%s)+{seconds})); while [ $(date +%s) -lt $end ]; do curl -s -o /dev/null --max-time 5 -w '%{{http_code}}\\n' \
         {url} || echo failed; done"
    );
    let mut command = lab.command("kubectl");
    command.args(["exec", from, "--", "sh", "-c", &script]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start kubectl")
}

fn killed(lab: &Lab) -> Result<()> {
    lab.apply(&asked(&["/clientip"]))?;
    let host = hosts(lab, "server")?.remove(0);
    let (good, bad) = (format!("http://{host}:8080/clientip"), format!("http://{host}:8080/hostname"));
    expect(lab, "far", &bad, 403)?;
    let (allowed, denied) = (knock(lab, "near", &good, 12)?, knock(lab, "far", &bad, 12)?);
    std::thread::sleep(Duration::from_secs(2));
    let agent = processes::agent("proxy-worker")?;
    processes::signal(&agent, "KILL")?;
    for (child, code) in [(allowed, "200"), (denied, "403")] {
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let (all, right) = (text.lines().count(), text.lines().filter(|line| *line == code).count());
        ensure!(all > 20 && all == right, "{right} of {all} answers are {code}: {text}");
    }
    eventually(Duration::from_secs(30), "another agent", || {
        ensure!(processes::agent("proxy-worker")?.pid != agent.pid, "none yet");
        Ok(())
    })?;
    no_policies(lab)
}

fn without(lab: &Lab) -> Result<()> {
    lab.apply(&asked(&["/clientip"]))?;
    let host = hosts(lab, "server")?.remove(0);
    let url = format!("http://{host}:8080/clientip");
    expect(lab, "near", &url, 200)?;
    lab.kubectl(&["-n", "kube-system", "delete", "daemonset", "cilium-envoy"])?.ok()?;
    for from in ["near", "far"] {
        expect(lab, from, &url, 0)?;
    }
    let drops = lab.hubble(&["observe", "--type", "drop", "--to-pod", "default/server", "--last", "20"])?.ok()?;
    ensure!(drops.contains("Socket lookup failed DROPPED"), "{drops}");
    // what no rule redirects goes its way
    let far = lab.pod_ip("default", "far")?;
    ensure!(lab.exec("default", "near", &["ping", "-c", "1", "-W", "2", &far])?.ok().is_ok());
    lab.kubectl(&["delete", "cnp", "--all"])?.ok()?;
    expect(lab, "near", &url, 200)?;
    Ok(())
}
