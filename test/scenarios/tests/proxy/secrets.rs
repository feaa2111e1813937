//! Do Secrets reach the proxy, change with their object, fail closed without it, and show up nowhere?

use super::{WITHIN, expect, get, hosts, no_policies, policy, requests};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use testbed::{Lab, eventually};

const MARKER: &str = "hunter2-of-the-lab";

fn create(lab: &Lab, name: &str, value: &str) -> Result<()> {
    lab.kubectl(&["create", "secret", "generic", name, &format!("--from-literal=token={value}")])?.ok().map(drop)
}

/// The code of the answer to a request with this header.
fn with_token(lab: &Lab, url: &str, token: &str) -> Result<u16> {
    let script = format!("curl -s -o /dev/null --max-time 3 -w '%{{http_code}}' -H 'X-Token: {token}' '{url}'; true");
    let text = lab.exec("default", "near", &["sh", "-c", &script])?.ok()?;
    text.trim().parse().with_context(|| format!("a code, found {text:?}"))
}

fn answered(lab: &Lab, url: &str, token: &str, code: u16) -> Result<()> {
    eventually(WITHIN, &format!("{token} is answered with {code}"), || {
        let found = with_token(lab, url, token)?;
        ensure!(found == code, "{found}");
        Ok(())
    })
}

/// The agents' words about a Secret that is missing.
fn told(lab: &Lab, words: &str) -> Result<()> {
    eventually(WITHIN, &format!("some agent says {words:?}"), || {
        let mut all = String::new();
        for agent in lab.pods("kube-system", "k8s-app=cilium")? {
            all += &lab.exec("kube-system", &agent, &["cilium-dbg", "status"])?.ok()?;
        }
        ensure!(all.contains(words), "{all}");
        Ok(())
    })
}

pub fn headers(lab: &Lab) -> Result<()> {
    let host = hosts(lab, "server")?.remove(0);
    let url = format!("http://{host}:8080/clientip");
    let rule = "{path: /clientip, headerMatches: [{name: X-Token, secret: {name: token, namespace: default}}]}";
    let ports = format!("{{ports: [{{port: \"8080\", protocol: TCP}}], rules: {{http: [{rule}]}}}}");
    lab.apply(&policy("server", &format!("ingress:\n  - toPorts:\n    - {ports}")))?;
    told(lab, "Secret default/token: the operator has not copied it")?;
    answered(lab, &url, MARKER, 403)?;
    create(lab, "token", MARKER)?;
    answered(lab, &url, MARKER, 200)?;
    ensure!(
        with_token(lab, &url, "other")? == 403 && get(lab, "near", &url)?.1 == 403,
        "only the secret's value passes"
    );
    // another value under the same name, while the proxy runs
    lab.kubectl(&["delete", "secret", "token"])?.ok()?;
    answered(lab, &url, MARKER, 403)?;
    let second = format!("{MARKER}-again");
    create(lab, "token", &second)?;
    answered(lab, &url, &second, 200)?;
    ensure!(with_token(lab, &url, MARKER)? == 403, "the earlier value is over");
    no_marker(lab)?;
    lab.kubectl(&["delete", "secret", "token"])?.ok()?;
    answered(lab, &url, &second, 403)?;
    no_policies(lab)?;
    eventually(WITHIN, "nobody needs a copy any more", || {
        let left = lab.kubectl(&["-n", "cilium-secrets", "get", "secrets", "-o", "name"])?.ok()?;
        ensure!(!left.contains("cilium-sync-secret-"), "{left}");
        Ok(())
    })
}

/// What a Secret holds is in no log and in no answer.
fn no_marker(lab: &Lab) -> Result<()> {
    let mut looked_at = 0;
    for (label, commands) in
        [("k8s-app=cilium", &ASKED[..]), ("k8s-app=cilium-envoy", &[]), ("name=cilium-operator", &[])]
    {
        for pod in lab.pods("kube-system", label)? {
            let mut shown = lab.kubectl(&["-n", "kube-system", "logs", &pod])?.ok()?;
            for command in commands {
                shown += &lab.exec("kube-system", &pod, command)?.ok()?;
            }
            if let Some(line) = shown.lines().find(|line| line.contains(MARKER)) {
                anyhow::bail!("{pod} shows it: {line}");
            }
            looked_at += shown.len();
        }
    }
    let flows = lab.hubble(&["observe", "--type", "l7", "--last", "50", "-o", "json"])?.ok()?;
    ensure!(!flows.contains(MARKER) && flows.contains("/clientip"), "{flows}");
    ensure!(looked_at > 10_000, "{looked_at} bytes of logs and answers");
    Ok(())
}

const ASKED: [&[&str]; 8] = [
    &["cilium-dbg", "status", "--verbose"],
    &["cilium-dbg", "status", "-o", "json"],
    &["cilium-dbg", "endpoint", "get", "-l", "k8s:io.kubernetes.pod.namespace=default"],
    &["cilium-dbg", "endpoint", "list", "-o", "json"],
    &["cilium-dbg", "policy", "get"],
    &["cilium-dbg", "policy", "selectors", "-o", "json"],
    &["cilium-dbg", "metrics", "list", "-o", "json"],
    &["cilium-dbg", "config", "--all"],
];

pub fn tls(lab: &Lab) -> Result<()> {
    let own = rcgen::generate_simple_self_signed(vec!["server.example".into()])?;
    let folder = std::env::temp_dir().join(format!("scenario-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    std::fs::write(&certificate, own.cert.pem())?;
    std::fs::write(&key, own.signing_key.serialize_pem())?;
    let arguments = [format!("--cert={}", certificate.display()), format!("--key={}", key.display())];
    let made = lab.kubectl(&["create", "secret", "tls", "own", &arguments[0], &arguments[1]]);
    std::fs::remove_dir_all(&folder)?;
    made?.ok()?;
    let ports = requests("8080", &["/clientip"]);
    let context = "terminatingTLS: {secret: {name: own, namespace: default}}";
    let ports = ports.replacen('{', &format!("{{{context}, "), 1);
    lab.apply(&policy("near", &format!("egress:\n  - toPorts:\n    - {ports}")))?;
    let host = hosts(lab, "server")?.remove(0);
    let asked = |path: &str| -> Result<String> {
        let to = format!("--connect-to server.example:8080:{host}:8080");
        let url = format!("https://server.example:8080{path}");
        let script = format!("curl -sk --max-time 3 {to} -w ' %{{http_code}}' '{url}'; true");
        lab.exec("default", "near", &["sh", "-c", &script])?.ok()
    };
    eventually(WITHIN, "TLS ends at the proxy and the server hears plain text", || {
        let (good, bad) = (asked("/clientip")?, asked("/hostname")?);
        ensure!(good.trim_end().ends_with("200") && bad.trim_end().ends_with("403"), "{good:?} {bad:?}");
        Ok(())
    })?;
    lab.kubectl(&["delete", "secret", "own"])?.ok()?;
    eventually(WITHIN, "without the secret nothing passes", || {
        let found = asked("/clientip")?;
        ensure!(found.trim_end().ends_with("000"), "{found:?}");
        Ok(())
    })?;
    told(lab, "terminatingTLS: Secret default/own")?;
    no_policies(lab)
}

/// Query, password and headers are left out before flows leave the proxy; a header that is listed stays.
pub fn redacted(lab: &Lab) -> Result<()> {
    lab.apply(&super::asked(&["/clientip"]))?;
    let host = hosts(lab, "server")?.remove(0);
    expect(lab, "near", &format!("http://{host}:8080/hostname"), 403)?;
    let script = format!(
        "curl -s -o /dev/null --max-time 3 -H 'Authorization: {MARKER}' -H 'traceparent: visible' \
         'http://{host}:8080/hostname?password={MARKER}'; true"
    );
    lab.exec("default", "near", &["sh", "-c", &script])?.ok()?;
    eventually(WITHIN, "the flow", || {
        let flows = lab
            .hubble(&["observe", "--type", "l7", "--to-pod", "default/server", "--last", "20", "-o", "json"])?
            .ok()?;
        ensure!(!flows.contains(MARKER), "{flows}");
        let flow = flows.lines().find(|line| line.contains("Traceparent")).context("no flow with the header")?;
        let flow: serde_json::Value = serde_json::from_str(flow)?;
        let http = &flow["flow"]["l7"]["http"];
        ensure!(http["url"] == format!("http://{host}:8080/hostname"), "{http}");
        let header = |key: &str| -> Result<String> {
            let all = http["headers"].as_array().context("headers")?;
            let found = all.iter().find(|header| header["key"] == key).with_context(|| format!("{key} in {http}"))?;
            Ok(found["value"].as_str().unwrap_or_default().to_owned())
        };
        ensure!(header("Authorization")? == "HUBBLE_REDACTED" && header("Traceparent")? == "visible", "{http}");
        let keys: Vec<_> = http["headers"].as_array().into_iter().flatten().map(|h| h["key"].to_string()).collect();
        ensure!(keys.is_sorted(), "{keys:?}");
        Ok(())
    })?;
    std::thread::sleep(Duration::from_millis(100));
    no_policies(lab)
}
