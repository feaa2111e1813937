//! Do the expectations of the BookInfo scenario (E4) hold: identities, egress policies step by step, what Hubble shows?

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::process::ExitCode;
use std::time::Duration;
use testbed::transcript::{normalise, normalised};
use testbed::{Lab, Plan, eventually, trials};

const PLAN: Plan<'static> = Plan { name: "kind", nodes: 4, options: &["--cluster-name", "kind-kind"] };

const WORKLOADS: &str = include_str!("../../../examples/bookinfo/workloads.yaml");
const DENY_ALL: &str = include_str!("../../../examples/bookinfo/01-productpage-deny-all.yaml");
const ALLOW_DNS: &str = include_str!("../../../examples/bookinfo/02-allow-to-dns.yaml");
const ALLOW_BACKENDS: &str = include_str!("../../../examples/bookinfo/03-from-product-to-reviews-details.yaml");

const ALLOW_DNS_L7: &str = include_str!("../../../examples/bookinfo/04-allow-to-dns-l7.yaml");
const CLIENT_TO_NAME: &str = include_str!("../../../examples/bookinfo/05-from-internal-client-to-fqdn.yaml");

const PAGE: &str = "http://productpage:9080/productpage";
const NO_REVIEWS: &str = "Error fetching product reviews!";
const SORRY: &str = "Sorry, product reviews are currently unavailable for this book.";
const WITHIN: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    trials::run(
        &PLAN,
        prepare,
        &[
            ("e4_01_without_policy_pods_talk_freely", e4_01),
            ("e4_02_the_three_reviews_run", e4_02),
            ("e4_06_the_client_reaches_productpage_and_hubble_shows_it", e4_06),
            ("e4_07_last_counts_for_each_node", e4_07),
            ("e4_08_every_pod_has_an_endpoint_with_identity_and_address", e4_08),
            ("e4_09_one_identity_for_each_set_of_labels", e4_09),
            ("e4_10_the_receiving_node_knows_the_sender_by_its_identity", e4_10),
            ("e4_11_deny_all_egress_denies_everything_dns_included", e4_11),
            ("e4_03_egress_policy_leaves_ingress_and_other_pods_alone", e4_03),
            ("e4_12_the_client_still_reaches_productpage", e4_12),
            ("e4_13_denied_dns_is_shown_as_verdict_and_drop", e4_13),
            ("e4_14_the_page_comes_without_reviews", e4_14),
            ("e4_05_a_new_pod_is_covered_at_once", e4_05),
            ("e4_15_dns_is_forwarded_and_the_rest_still_denied", e4_15),
            ("e4_19_reviews_and_details_are_back_and_ratings_stay_denied", e4_19),
            ("e4_20_pods_that_no_policy_selects_keep_all_traffic", e4_20),
            ("e4_04_replies_need_no_rule", e4_04),
            ("e4_16_e4_17_questions_and_answers_are_shown", e4_16),
            ("e4_18_other_names_are_refused_and_shown", e4_18),
            ("e4_27_without_a_lookup_an_address_stays_closed", e4_27),
            ("e4_22_e4_25_a_name_opens_the_addresses_of_its_answers", e4_22),
            ("e4_23_e4_24_search_domains_and_a_name_that_no_rule_opens", e4_23),
            ("addresses_of_names_share_an_identity_as_the_commands_show", shared_identity),
            ("a_denied_name_is_not_resolved_and_its_addresses_are_closed", denied_name),
            ("e4_26_names_outlive_the_agent_and_say_why", e4_26),
            ("e4_28_the_configuration_says_tunnel_and_vxlan", e4_28),
            ("e4_29_the_source_node_sees_the_packet_enter_the_overlay", e4_29),
            ("e4_30_the_destination_node_sees_it_reach_the_endpoint", e4_30),
            ("e4_31_flows_carry_the_labels_sorted", e4_31),
            ("e4_32_pods_can_be_named_in_place_of_identities", e4_32),
        ],
    )
}

/// The workloads, with the client on productpage's node: there its packets are seen once, as in the transcripts.
fn prepare(lab: &Lab) -> Result<()> {
    lab.apply(WORKLOADS)?;
    lab.rolled_out("default")?;
    let node = node_of(lab, &productpage(lab)?)?;
    lab.kubectl(&["delete", "pod", "internal-client", "--now"])?.ok()?;
    let fields = format!("{{\"spec\":{{\"nodeName\":\"{node}\"}}}}");
    let image = "docker.io/curlimages/curl:8.10.1";
    let run = ["run", "internal-client", "--image", image, "--labels", "app=internal-client", "--overrides", &fields];
    lab.kubectl(&run)?.ok()?;
    lab.kubectl(&["wait", "--for=condition=Ready", "pod/internal-client", "--timeout=60s"])?.ok()?;
    Ok(())
}

/// What `curl` in the client gets from productpage.
fn page(lab: &Lab) -> Result<String> {
    lab.exec("default", "internal-client", &["curl", "-s", "--max-time", "25", PAGE])?.ok()
}

fn productpage(lab: &Lab) -> Result<String> {
    lab.pod("default", "app=productpage")
}

fn identities(lab: &Lab) -> Result<(String, String)> {
    let client = lab.identity("default", "internal-client")?;
    let page = lab.identity("default", &productpage(lab)?)?;
    Ok((client.to_string(), page.to_string()))
}

/// `hubble observe ARGS`, normalised, once it contains every line of `wanted`.
fn observed(lab: &Lab, args: &[&str], wanted: &[&str]) -> Result<Vec<String>> {
    let words: Vec<&str> = ["observe"].iter().chain(args).copied().collect();
    eventually(WITHIN, &format!("hubble {}", words.join(" ")), || {
        let lines = normalised(&lab.hubble(&words)?.ok()?);
        for line in wanted {
            ensure!(lines.iter().any(|l| l == line), "no line `{line}` in\n{}", lines.join("\n"));
        }
        Ok(lines)
    })
}

fn e4_01(lab: &Lab) -> Result<()> {
    let html = eventually(WITHIN, "the whole page", || {
        let html = page(lab)?;
        ensure!(html.contains("Book Reviews") && html.contains("Book Details"), "{html}");
        Ok(html)
    })?;
    ensure!(!html.contains(NO_REVIEWS), "{html}");
    for host in ["details", "ratings", "reviews.default.svc.cluster.local"] {
        ensure!(lab.connects("default", "internal-client", host, 9080)?, "client cannot reach {host}");
    }
    Ok(())
}

fn e4_02(lab: &Lab) -> Result<()> {
    let table = lab.kubectl(&["get", "pods", "-l", "app=reviews"])?.ok()?;
    let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    ensure!(rows[0] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"], "{table}");
    for (row, version) in rows[1..].iter().zip(["reviews-v1-", "reviews-v2-", "reviews-v3-"]) {
        ensure!(row[0].starts_with(version) && row[1..4] == ["1/1", "Running", "0"], "{table}");
    }
    ensure!(rows.len() == 4, "{table}");
    Ok(())
}

fn e4_06(lab: &Lab) -> Result<()> {
    let (client, server) = identities(lab)?;
    page(lab)?;
    let forwarded = |flags: &str| {
        format!(
            "default/internal-client:PORT (ID:N) -> default/productpage-v1:9080 (ID:N) to-endpoint FORWARDED (TCP Flags: {flags})"
        )
    };
    let lines = [forwarded("SYN"), forwarded("ACK"), forwarded("ACK, PSH"), forwarded("ACK, FIN")];
    let wanted: Vec<&str> = lines.iter().map(String::as_str).collect();
    let args = ["--to-identity", &server, "--last", "5", "--from-identity", &client];
    let seen = observed(lab, &args, &wanted[..3])?;
    ensure!(seen.len() == 5, "{} lines: {seen:#?}", seen.len());
    observed(lab, &["--to-identity", &server, "--from-identity", &client, "--last", "20"], &wanted)?;
    Ok(())
}

fn e4_07(lab: &Lab) -> Result<()> {
    let (_, server) = identities(lab)?;
    for _ in 0..6 {
        page(lab)?;
    }
    let text = lab.hubble(&["observe", "--from-identity", &server, "--last", "5", "-o", "jsonpb"])?.ok()?;
    let mut nodes = std::collections::BTreeMap::<String, usize>::new();
    for flow in flows(&text)? {
        *nodes.entry(flow["node_name"].as_str().context("node_name")?.to_string()).or_default() += 1;
    }
    ensure!(nodes.len() >= 2 && nodes.values().all(|n| *n <= 5), "{nodes:?}");
    ensure!(nodes.values().any(|n| *n == 5), "{nodes:?}");
    let lines = normalised(&lab.hubble(&["observe", "--from-identity", &server, "--last", "200"])?.ok()?);
    for wanted in [
        "default/internal-client:PORT (ID:N) <- default/productpage-v1:9080 (ID:N) to-endpoint FORWARDED (TCP Flags: ACK, PSH)",
        "default/productpage-v1:PORT (ID:N) -> kube-system/coredns:53 (ID:N) to-endpoint FORWARDED (UDP)",
    ] {
        ensure!(lines.iter().any(|l| l == wanted), "no `{wanted}` in {lines:#?}");
    }
    ensure!(lines.iter().any(|l| l.contains("-> default/reviews-v") && l.contains(":9080")), "{lines:#?}");
    Ok(())
}

/// Each line of JSON output as a flow response.
fn flows(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|l| serde_json::from_str(l).with_context(|| l.to_string())).collect()
}

fn e4_08(lab: &Lab) -> Result<()> {
    let table = lab.kubectl(&["get", "ciliumendpoints"])?.ok()?;
    let header = table.lines().next().unwrap_or_default();
    let columns = ["NAME", "SECURITY IDENTITY", "ENDPOINT STATE", "IPV4", "IPV6"];
    let mut from = 0;
    for column in columns {
        from += header[from..].find(column).with_context(|| format!("no {column} in {header}"))?;
    }
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|l| l.split_whitespace().collect()).collect();
    for name in [
        "details-v1-",
        "internal-client",
        "productpage-v1-",
        "ratings-v1-",
        "reviews-v1-",
        "reviews-v2-",
        "reviews-v3-",
    ] {
        let row = rows.iter().find(|r| r[0].starts_with(name)).with_context(|| format!("{name} in\n{table}"))?;
        let identity: u32 = row[1].parse().with_context(|| table.clone())?;
        ensure!((256..65536).contains(&identity), "{table}");
        ensure!(row[2] == "ready" && row[3].starts_with("10.244.") && row.len() == 4, "{table}");
    }
    ensure!(rows.len() == 7, "{table}");
    Ok(())
}

fn e4_09(lab: &Lab) -> Result<()> {
    let mut reviews = Vec::new();
    for version in ["v1", "v2", "v3"] {
        let pod = lab.pod("default", &format!("app=reviews,version={version}"))?;
        reviews.push(lab.identity("default", &pod)?);
    }
    reviews.sort_unstable();
    reviews.dedup();
    ensure!(reviews.len() == 3, "versions share an identity: {reviews:?}");
    let dns = lab.pods("kube-system", "k8s-app=kube-dns")?;
    ensure!(dns.len() == 2, "{dns:?}");
    let numbers: Vec<u64> = dns.iter().map(|p| lab.identity("kube-system", p)).collect::<Result<_>>()?;
    ensure!(numbers[0] == numbers[1], "equal labels, different identities: {numbers:?}");
    Ok(())
}

/// A version of reviews that runs on another node than productpage, and that node.
fn remote_reviews(lab: &Lab) -> Result<(String, String)> {
    let home = node_of(lab, &productpage(lab)?)?;
    for pod in lab.pods("default", "app=reviews")? {
        let node = node_of(lab, &pod)?;
        if node != home {
            return Ok((pod, node));
        }
    }
    bail!("all reviews run beside productpage on {home}")
}

fn node_of(lab: &Lab, pod: &str) -> Result<String> {
    let pod = lab.get(&["pod", pod])?;
    Ok(pod["spec"]["nodeName"].as_str().context("spec.nodeName")?.to_string())
}

fn e4_10(lab: &Lab) -> Result<()> {
    let (pod, node) = remote_reviews(lab)?;
    let sender = lab.identity("default", &productpage(lab)?)?;
    let flow = remote_flow(lab, &pod, &node, "TO_ENDPOINT")?;
    ensure!(flow["source"]["identity"] == sender, "{flow:#}");
    Ok(())
}

fn e4_11(lab: &Lab) -> Result<()> {
    lab.apply(DENY_ALL)?;
    let pod = productpage(lab)?;
    eventually(WITHIN, "egress of productpage denied", || {
        for (host, port) in
            [(lab.pod_ip("default", &lab.pod("default", "app=details")?)?, 9080), ("34.117.118.44".into(), 80)]
        {
            ensure!(!lab.connects("default", &pod, &host, port)?, "{host}:{port} answers");
        }
        Ok(())
    })?;
    let name = lab.exec("default", &pod, &["sh", "-c", "timeout 4 getent hosts details; echo code $?"])?.ok()?;
    ensure!(!name.contains("code 0"), "a name was resolved: {name}");
    Ok(())
}

fn e4_03(lab: &Lab) -> Result<()> {
    let list = lab.kubectl(&["get", "ciliumendpoints", "-o", "json"])?.ok()?;
    ensure!(list.contains("productpage"), "{list}");
    ensure!(lab.connects("default", "internal-client", "productpage", 9080)?, "ingress of productpage is touched");
    ensure!(lab.connects("default", "internal-client", "details", 9080)?, "the client's egress is touched");
    Ok(())
}

fn e4_12(lab: &Lab) -> Result<()> {
    let (client, server) = identities(lab)?;
    page(lab)?;
    let forwarded = |flags: &str| {
        format!(
            "default/internal-client:PORT (ID:N) -> default/productpage-v1:9080 (ID:N) to-endpoint FORWARDED (TCP Flags: {flags})"
        )
    };
    let lines = ["SYN", "ACK", "ACK, PSH", "ACK, FIN"].map(forwarded);
    let wanted: Vec<&str> = lines.iter().map(String::as_str).collect();
    observed(lab, &["--to-identity", &server, "--last", "20", "--from-identity", &client], &wanted)?;
    Ok(())
}

fn e4_13(lab: &Lab) -> Result<()> {
    let (_, server) = identities(lab)?;
    page(lab)?;
    let verdict =
        "default/productpage-v1:PORT (ID:N) <> kube-system/coredns:53 (ID:N) policy-verdict:none EGRESS DENIED (UDP)";
    let drop = "default/productpage-v1:PORT (ID:N) <> kube-system/coredns:53 (ID:N) Policy denied DROPPED (UDP)";
    let text = {
        observed(lab, &["--from-identity", &server, "--since", "2m"], &[verdict, drop])?;
        lab.hubble(&["observe", "--from-identity", &server, "--since", "2m", "--port", "53"])?.ok()?
    };
    // each verdict is followed by its drop, with the same time stamp
    let lines: Vec<&str> = text.lines().collect();
    let denied = lines.iter().position(|l| l.contains("EGRESS DENIED (UDP)")).context("no verdict")?;
    let (first, second) = (lines[denied], lines.get(denied + 1).context("nothing after the verdict")?);
    ensure!(second.contains("Policy denied DROPPED (UDP)") && first[..20] == second[..20], "{first}\n{second}");
    Ok(())
}

fn e4_14(lab: &Lab) -> Result<()> {
    let html = page(lab)?;
    ensure!(html.contains(NO_REVIEWS) && html.contains(SORRY), "{html}");
    Ok(())
}

fn e4_05(lab: &Lab) -> Result<()> {
    let before = lab.pods("default", "app=productpage")?;
    lab.kubectl(&["scale", "deployment/productpage-v1", "--replicas=2"])?.ok()?;
    lab.rolled_out("default")?;
    let pods = lab.pods("default", "app=productpage")?;
    let fresh = pods.iter().find(|p| !before.contains(p)).context("no new pod")?;
    let details = lab.pod_ip("default", &lab.pod("default", "app=details")?)?;
    let reached = lab.connects("default", fresh, &details, 9080)?;
    lab.kubectl(&["scale", "deployment/productpage-v1", "--replicas=1"])?.ok()?;
    eventually(WITHIN, "one productpage again", || productpage(lab))?;
    ensure!(!reached, "the new pod {fresh} escapes the policy");
    Ok(())
}

fn e4_15(lab: &Lab) -> Result<()> {
    lab.apply(ALLOW_DNS)?;
    let (_, server) = identities(lab)?;
    let pod = productpage(lab)?;
    eventually(WITHIN, "names resolve again", || lab.exec("default", &pod, &["getent", "hosts", "details"])?.ok())?;
    observed(
        lab,
        &["--from-identity", &server, "--last", "20"],
        &["default/productpage-v1:PORT (ID:N) -> kube-system/coredns:53 (ID:N) to-endpoint FORWARDED (UDP)"],
    )?;
    let html = page(lab)?;
    ensure!(html.contains(NO_REVIEWS), "reviews are reached although nothing allows them: {html}");
    Ok(())
}

fn e4_19(lab: &Lab) -> Result<()> {
    lab.apply(ALLOW_BACKENDS)?;
    eventually(WITHIN, "the whole page again", || {
        let html = page(lab)?;
        ensure!(!html.contains(NO_REVIEWS) && html.contains("Book Details"), "{html}");
        Ok(())
    })?;
    let (_, server) = identities(lab)?;
    for _ in 0..9 {
        page(lab)?;
    }
    for version in ["v1", "v2", "v3"] {
        let line = format!(
            "default/productpage-v1:PORT (ID:N) -> default/reviews-{version}:9080 (ID:N) to-endpoint FORWARDED (TCP Flags: ACK)"
        );
        observed(lab, &["--from-identity", &server, "--last", "200"], &[&line])?;
    }
    ensure!(!lab.connects("default", &productpage(lab)?, "ratings", 9080)?, "ratings can be reached directly");
    Ok(())
}

fn resolves(lab: &Lab, pod: &str, name: &str) -> Result<String> {
    lab.exec("default", pod, &["getent", "ahosts", name])?.ok()
}

fn e4_16(lab: &Lab) -> Result<()> {
    lab.apply(ALLOW_DNS_L7)?;
    let pod = productpage(lab)?;
    let asked = |kind: &str| {
        format!(
            "default/productpage-v1:PORT (ID:N) -> kube-system/coredns:53 (ID:N) dns-request proxy FORWARDED (DNS Query \
             details.default.svc.cluster.local. {kind})"
        )
    };
    let told = |what: &str| {
        format!(
            "default/productpage-v1:PORT (ID:N) <- kube-system/coredns:53 (ID:N) dns-response proxy FORWARDED (DNS Answer {what})"
        )
    };
    eventually(WITHIN, "questions and answers of details", || {
        resolves(lab, &pod, "details")?;
        let address = lab.get(&["service", "details"])?["spec"]["clusterIP"].as_str().context("clusterIP")?.to_owned();
        let lines = normalised(&lab.hubble(&["observe", "--protocol", "dns", "--last", "40"])?.ok()?);
        let wanted = [
            asked("A"),
            asked("AAAA"),
            told(&format!("\"{address}\" TTL: 30 (Proxy details.default.svc.cluster.local. A)")),
            told(" TTL: 4294967295 (Proxy details.default.svc.cluster.local. AAAA)"),
        ];
        for line in wanted {
            ensure!(lines.contains(&normalise(&line)), "no line `{line}` in\n{}", lines.join("\n"));
        }
        Ok(())
    })?;
    let html = page(lab)?;
    ensure!(!html.contains(NO_REVIEWS), "the page has lost its reviews: {html}");
    Ok(())
}

fn e4_18(lab: &Lab) -> Result<()> {
    let pod = productpage(lab)?;
    lab.apply(&ALLOW_DNS_L7.replace("\"*\"", "\"*.default.svc.cluster.local\""))?;
    eventually(WITHIN, "another name is refused", || {
        ensure!(resolves(lab, &pod, "details").is_ok(), "details does not resolve");
        ensure!(resolves(lab, &pod, "example.com").is_err(), "example.com resolves");
        let lines =
            normalised(&lab.hubble(&["observe", "--protocol", "dns", "--verdict", "DROPPED", "--last", "40"])?.ok()?);
        let wanted = "default/productpage-v1:PORT (ID:N) -> kube-system/coredns:53 (ID:N) dns-request proxy DROPPED (DNS Query example.com. A)";
        ensure!(lines.iter().any(|line| line == wanted), "no line `{wanted}` in\n{}", lines.join("\n"));
        Ok(())
    })?;
    lab.apply(ALLOW_DNS_L7)?;
    eventually(WITHIN, "any name again", || resolves(lab, &pod, "example.com"))?;
    Ok(())
}

fn e4_27(lab: &Lab) -> Result<()> {
    lab.apply(CLIENT_TO_NAME)?;
    eventually(WITHIN, "productpage is closed to the client", || {
        let address = lab.pod_ip("default", &productpage(lab)?)?;
        ensure!(!lab.connects("default", "internal-client", &address, 9080)?, "it is reached");
        ensure!(resolves(lab, "internal-client", "productpage").is_ok(), "names do not resolve");
        Ok(())
    })?;
    ensure!(!lab.connects("default", "internal-client", "34.117.118.44", 80)?, "reached without a lookup");
    Ok(())
}

fn e4_22(lab: &Lab) -> Result<()> {
    // At the first try: the answer is given once its address is open.
    for _ in 0..3 {
        let body =
            lab.exec("default", "internal-client", &["curl", "-s", "--max-time", "5", "http://ifconfig.me/"])?.ok()?;
        ensure!(!body.is_empty(), "an empty answer");
    }
    let dns = |line: &str| format!("default/internal-client:PORT (ID:N) {line}");
    let wanted = [
        dns("-> kube-system/coredns:53 (ID:N) dns-request proxy FORWARDED (DNS Query ifconfig.me. A)"),
        dns(
            "<- kube-system/coredns:53 (ID:N) dns-response proxy FORWARDED (DNS Answer \"34.117.118.44\" TTL: 30 (Proxy ifconfig.me. A))",
        ),
        dns(
            "<- kube-system/coredns:53 (ID:N) dns-response proxy FORWARDED (DNS Answer \"2600:1901:0:bbc3::\" TTL: 30 (Proxy ifconfig.me. AAAA))",
        ),
    ];
    let wanted: Vec<String> = wanted.iter().map(|line| normalise(line)).collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    observed(lab, &["--pod", "internal-client", "--protocol", "dns", "--last", "60"], &wanted)?;
    let to = |what: &str| dns(&format!("-> ifconfig.me:80 (ID:N) {what}"));
    let wanted = [
        to("policy-verdict:L3-Only EGRESS ALLOWED (TCP Flags: SYN)"),
        to("to-stack FORWARDED (TCP Flags: SYN)"),
        to("to-stack FORWARDED (TCP Flags: ACK)"),
        to("to-stack FORWARDED (TCP Flags: ACK, PSH)"),
        to("to-stack FORWARDED (TCP Flags: ACK, FIN)"),
    ];
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    observed(lab, &["--pod", "internal-client", "--protocol", "tcp", "--last", "60"], &wanted)?;
    Ok(())
}

fn e4_23(lab: &Lab) -> Result<()> {
    ensure!(!lab.connects("default", "internal-client", "cnn.com", 80)?, "cnn.com is reached");
    let dns = |line: &str| normalise(&format!("default/internal-client:PORT (ID:N) {line}"));
    let wanted = [
        dns(
            "<- kube-system/coredns:53 (ID:N) dns-response proxy FORWARDED (DNS Answer RCode: Non-Existent Domain TTL: 4294967295 (Proxy cnn.com.default.svc.cluster.local. A))",
        ),
        dns(
            "<- kube-system/coredns:53 (ID:N) dns-response proxy FORWARDED (DNS Answer \"151.101.3.5,151.101.131.5,151.101.67.5,151.101.195.5\" TTL: 30 (Proxy cnn.com. A))",
        ),
    ];
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    observed(lab, &["--pod", "internal-client", "--protocol", "dns", "--last", "100"], &wanted)?;
    let wanted = [
        dns("<> cnn.com:80 (world) policy-verdict:none EGRESS DENIED (TCP Flags: SYN)"),
        dns("<> cnn.com:80 (world) Policy denied DROPPED (TCP Flags: SYN)"),
    ];
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    observed(lab, &["--pod", "internal-client", "--protocol", "tcp", "--last", "60"], &wanted)?;
    Ok(())
}

/// The numbers that stand for these labels, as an agent tells them.
fn numbers_of(lab: &Lab, agent: &str, labels: &str) -> Result<Vec<String>> {
    let text = lab.exec("kube-system", agent, &["cilium-dbg", "identity", "list", "-o", "json"])?.ok()?;
    let all: serde_json::Value = serde_json::from_str(&text)?;
    let has = |one: &&serde_json::Value| {
        let own = one["labels"].as_array().into_iter().flatten().filter_map(|label| label.as_str());
        own.collect::<Vec<_>>().join(",") == labels
    };
    Ok(all.as_array().context("a list")?.iter().filter(has).map(|one| one["id"].to_string()).collect())
}

/// Four addresses of one name, one identity; the commands and Hubble tell its labels.
fn shared_identity(lab: &Lab) -> Result<()> {
    let agent = lab.agent_on(&node_of(lab, "internal-client")?)?;
    lab.apply(
        &CLIENT_TO_NAME
            .replace("- matchName: \"ifconfig.me\"", "- matchName: \"ifconfig.me\"\n        - matchName: \"cnn.com\""),
    )?;
    eventually(WITHIN, "cnn.com is reached", || {
        ensure!(lab.connects("default", "internal-client", "cnn.com", 80)?, "it is not");
        Ok(())
    })?;
    let numbers = numbers_of(lab, &agent, "fqdn:cnn.com,reserved:world")?;
    ensure!(numbers.len() == 1, "one identity, found {numbers:?}");
    let list = lab.exec("kube-system", &agent, &["cilium-dbg", "ip", "list", "-n"])?.ok()?;
    for address in ["151.101.3.5", "151.101.131.5", "151.101.67.5", "151.101.195.5"] {
        let line =
            list.lines().find(|line| line.starts_with(&format!("{address}/32"))).with_context(|| list.clone())?;
        ensure!(line.contains(&numbers[0]), "{line} is not {}", numbers[0]);
    }
    let flows = ["observe", "--pod", "internal-client", "--protocol", "tcp", "--last", "30", "-o", "jsonpb"];
    eventually(WITHIN, "Hubble tells the labels", || {
        let text = lab.hubble(&flows)?.ok()?;
        ensure!(text.contains("\"fqdn:cnn.com\""), "{text}");
        Ok(())
    })
}

/// A name that is denied is not resolved. Where another pod learned its address, that is closed, also under another name.
fn denied_name(lab: &Lab) -> Result<()> {
    let deny = |extra: &str| {
        format!("{CLIENT_TO_NAME}  egressDeny:\n    - toFQDNs:\n        - matchName: \"ifconfig.me\"\n{extra}")
    };
    ensure!(lab.connects("default", "internal-client", "ifconfig.me", 80)?, "it is open at first");
    lab.apply(&deny(""))?;
    eventually(WITHIN, "the address that was open is closed", || {
        ensure!(!lab.connects("default", "internal-client", "34.117.118.44", 80)?, "it is reached");
        Ok(())
    })?;
    let agent = lab.agent_on(&node_of(lab, "internal-client")?)?;
    let why = ["cilium-dbg", "fqdn", "why", "34.117.118.44", "--pod", "internal-client"];
    let text = lab.exec("kube-system", &agent, &why)?.ok()?;
    ensure!(text.contains("egressDeny[0] ifconfig.me") && text.contains("is denied as ifconfig.me."), "{text}");
    let asked = resolves(lab, "internal-client", "ifconfig.me");
    ensure!(asked.is_err(), "the question is answered");
    let dns = |line: &str| normalise(&format!("default/internal-client:PORT (ID:N) {line}"));
    let refused = dns("-> kube-system/coredns:53 (ID:N) dns-request proxy DROPPED (DNS Query ifconfig.me. A)");
    observed(lab, &["--pod", "internal-client", "--protocol", "dns", "--last", "60"], &[&refused])?;
    // On some ports only, the name is resolved, and closed there.
    lab.apply(&deny("      toPorts:\n        - ports:\n           - port: \"81\"\n"))?;
    eventually(WITHIN, "the other port is open", || {
        ensure!(lab.connects("default", "internal-client", "ifconfig.me", 80)?, "it is not");
        Ok(())
    })?;
    lab.apply(CLIENT_TO_NAME).map(drop)
}

fn e4_26(lab: &Lab) -> Result<()> {
    let node = node_of(lab, "internal-client")?;
    let agent = lab.agent_on(&node)?;
    let cache = lab.exec("kube-system", &agent, &["cilium-dbg", "fqdn", "cache", "list", "-p", "ifconfig.me"])?.ok()?;
    ensure!(cache.contains("ifconfig.me.") && cache.contains("34.117.118.44"), "{cache}");
    let why = ["cilium-dbg", "fqdn", "why", "34.117.118.44", "--pod", "internal-client"];
    let text = lab.exec("kube-system", &agent, &why)?.ok()?;
    ensure!(text.contains("34.117.118.44 is ifconfig.me."), "{text}");
    ensure!(text.contains("CiliumNetworkPolicy default/from-internal-client-to-fqdn: egress[1] ifconfig.me"), "{text}");
    let open = || -> Result<()> {
        ensure!(lab.connects("default", "internal-client", "ifconfig.me", 80)?, "ifconfig.me is not reached");
        Ok(())
    };
    open()?;
    let process = testbed::processes::agent(&node)?;
    testbed::processes::signal(&process, "KILL")?;
    // without an agent, and while the next one comes up
    for _ in 0..8 {
        open()?;
    }
    eventually(Duration::from_secs(60), "the next agent knows the name", || {
        let agent = lab.agent_on(&node)?;
        let cache = lab.exec("kube-system", &agent, &["cilium-dbg", "fqdn", "cache", "list"])?.ok()?;
        ensure!(cache.contains("ifconfig.me."), "{cache}");
        Ok(())
    })?;
    open()?;
    lab.kubectl(&["delete", "cnp", "from-internal-client-to-fqdn"])?.ok()?;
    eventually(WITHIN, "the client reaches productpage again", || page(lab).map(drop))
}

fn e4_20(lab: &Lab) -> Result<()> {
    let reviews = lab.pod("default", "app=reviews,version=v2")?;
    ensure!(lab.connects("default", &reviews, "ratings", 9080)?, "reviews lost ratings");
    Ok(())
}

fn e4_04(lab: &Lab) -> Result<()> {
    // client egress and server ingress are allowed, nothing else is; the answers come back all the same
    lab.apply(&[DENY_ALL, ALLOW_DNS, ALLOW_BACKENDS].join("\n---\n"))?;
    lab.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: details-from-productpage}\nspec:\n  \
         endpointSelector: {matchLabels: {app: details}}\n  ingress:\n  - fromEndpoints:\n    - matchLabels: {app: productpage}\n  \
         egress:\n  - {}\n",
    )?;
    let result = eventually(WITHIN, "details answers productpage", || {
        let url = "http://details:9080/details/0";
        lab.exec("default", &productpage(lab)?, &["curl", "-s", "-f", "--max-time", "3", url])?.ok()
    });
    let closed = eventually(WITHIN, "details refuses the client", || {
        ensure!(!lab.connects("default", "internal-client", "details", 9080)?, "the client reaches details");
        Ok(())
    });
    lab.kubectl(&["delete", "cnp", "details-from-productpage"])?.ok()?;
    result.map(drop).and(closed)
}

fn e4_28(lab: &Lab) -> Result<()> {
    let text = lab.run("cilium", &["config", "view"])?.ok()?;
    for line in [
        "routing-mode                                      tunnel",
        "tunnel-protocol                                   vxlan",
    ] {
        ensure!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }
    Ok(())
}

/// A flow from productpage to this pod as that node's Hubble tells it, at this observation point.
fn remote_flow(lab: &Lab, to: &str, node: &str, point: &str) -> Result<Value> {
    let from = productpage(lab)?;
    let url = format!("http://{}:9080/reviews/0", lab.pod_ip("default", to)?);
    eventually(WITHIN, &format!("a flow {point} on {node}"), || {
        lab.exec("default", &from, &["curl", "-s", "--max-time", "3", &url])?.ok()?;
        let args = [
            "observe",
            "--from-pod",
            &from,
            "--to-pod",
            to,
            "--last",
            "50",
            "-o",
            "jsonpb",
            "--not",
            "--verdict",
            "DROPPED",
        ];
        let found = flows(&lab.hubble(&args)?.ok()?)?.into_iter().map(|f| f["flow"].clone()).find(|f| {
            f["trace_observation_point"] == point
                && f["node_name"] == format!("kind-kind/{node}")
                && f["l4"]["TCP"]["flags"] == serde_json::json!({"ACK": true})
        });
        found.context("none yet")
    })
}

fn e4_29(lab: &Lab) -> Result<()> {
    let (to, _) = remote_reviews(lab)?;
    let from = productpage(lab)?;
    let node = node_of(lab, &from)?;
    let flow = remote_flow(lab, &to, &node, "TO_OVERLAY")?;
    let expected =
        [("verdict", "FORWARDED"), ("traffic_direction", "EGRESS"), ("Type", "L3_L4"), ("Summary", "TCP Flags: ACK")];
    for (field, value) in expected {
        ensure!(flow[field] == value, "{field}: {flow:#}");
    }
    ensure!(flow["event_type"] == serde_json::json!({"type": 4, "sub_type": 4}), "{flow:#}");
    ensure!(flow["interface"]["name"] == "cilium_vxlan", "{flow:#}");
    ensure!(flow["source"]["ID"].is_u64() && flow["source"]["workloads"][0]["name"] == "productpage-v1", "{flow:#}");
    ensure!(flow["source"]["workloads"][0]["kind"] == "Deployment", "{flow:#}");
    ensure!(flow["destination"]["ID"].is_null() && flow["destination"]["workloads"].is_null(), "{flow:#}");
    ensure!(flow["source"]["identity"] == lab.identity("default", &from)?, "{flow:#}");
    ensure!(flow["destination"]["identity"] == lab.identity("default", &to)?, "{flow:#}");
    ensure!(flow["l4"]["TCP"]["destination_port"] == 9080 && flow["is_reply"] == false, "{flow:#}");
    Ok(())
}

fn e4_30(lab: &Lab) -> Result<()> {
    let (to, node) = remote_reviews(lab)?;
    let flow = remote_flow(lab, &to, &node, "TO_ENDPOINT")?;
    ensure!(flow["verdict"] == "FORWARDED" && flow["traffic_direction"] == "INGRESS", "{flow:#}");
    ensure!(flow["event_type"] == serde_json::json!({"type": 4}), "{flow:#}");
    let interface = flow["interface"]["name"].as_str().unwrap_or_default();
    ensure!(interface.starts_with("lxc"), "{flow:#}");
    ensure!(flow["destination"]["ID"].is_u64(), "{flow:#}");
    let workload = flow["destination"]["workloads"][0]["name"].as_str().unwrap_or_default();
    ensure!(workload.starts_with("reviews-v"), "{flow:#}");
    ensure!(flow["source"]["ID"].is_null() && flow["source"]["workloads"].is_null(), "{flow:#}");
    ensure!(flow["source"]["identity"] == lab.identity("default", &productpage(lab)?)?, "{flow:#}");
    Ok(())
}

fn e4_31(lab: &Lab) -> Result<()> {
    let (to, node) = remote_reviews(lab)?;
    let flow = remote_flow(lab, &to, &node, "TO_ENDPOINT")?;
    let labels = |app: &str, account: &str, version: &str| {
        serde_json::json!([
            format!("k8s:app={app}"),
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default",
            "k8s:io.cilium.k8s.policy.cluster=kind-kind",
            format!("k8s:io.cilium.k8s.policy.serviceaccount={account}"),
            "k8s:io.kubernetes.pod.namespace=default",
            format!("k8s:version={version}"),
        ])
    };
    ensure!(flow["source"]["labels"] == labels("productpage", "bookinfo-productpage", "v1"), "{flow:#}");
    let version = &to["reviews-".len()..][..2];
    ensure!(flow["destination"]["labels"] == labels("reviews", "bookinfo-reviews", version), "{flow:#}");
    Ok(())
}

fn e4_32(lab: &Lab) -> Result<()> {
    page(lab)?;
    let text = lab
        .hubble(&["observe", "--from-pod", "internal-client", "--to-pod", "default/productpage", "--last", "20"])?
        .ok()?;
    let lines: Vec<String> = text.lines().map(normalise).collect();
    let all = "default/internal-client:PORT (ID:N) -> default/productpage-v1:9080 (ID:N) ";
    ensure!(!lines.is_empty() && lines.iter().all(|l| l.starts_with(all)), "{lines:#?}");
    Ok(())
}
