//! Which requests and which names pass (E0.20, E0.22, E0.23, E0.28 to E0.31)?

use crate::{WITHIN, enforced, expect, in_namespace, pod};
use anyhow::{Context, Result, ensure};
use testbed::{Lab, eventually};

const ONLY_NAMES: &str = include_str!("../../../../examples/oke/05-default-deny-all-cilium-hr.yaml");
const REQUESTS: &str = include_str!("../../../../examples/oke/09-l7-rule.yaml");

const HR: (&str, &str) = ("cilium-hr", "backend");
const FIN: (&str, &str) = ("cilium-fin", "frontend");
const MFG: (&str, &str) = ("cilium-mfg", "frontend");
const WEB: (&str, &str) = ("cilium-web", "web");

/// What curl gets: body and code, which is 0 if there is no answer.
fn curl(lab: &Lab, from: (&str, &str), words: &str) -> Result<(String, u16)> {
    let script = format!("curl -s --max-time 3 -w '\\n%{{http_code}}' {words}; true");
    let text = lab.exec(from.0, &pod(lab, from.0, from.1)?, &["sh", "-c", &script])?.ok()?;
    let (body, code) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
    Ok((body.to_owned(), code.parse().with_context(|| format!("a code, found {text:?}"))?))
}

/// Waits until curl gets this code; the body.
fn gets(lab: &Lab, from: (&str, &str), words: &str, code: u16) -> Result<String> {
    eventually(WITHIN, &format!("{from:?}: {words}: {code}"), || {
        let (body, found) = curl(lab, from, words)?;
        ensure!(found == code, "{found} {body:?}");
        Ok(body)
    })
}

/// Takes all policies away, and waits until a request that the last ones denied passes.
fn no_policies(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", "cnp,ccnp,netpol", "--all", "-A"])?.ok()?;
    gets(lab, MFG, &format!("http://{}/other", web(lab)?), 200)?;
    expect(lab, HR, FIN, 80, true)
}

fn web(lab: &Lab) -> Result<String> {
    lab.pod_ip(WEB.0, WEB.1)
}

pub fn e0_20(lab: &Lab) -> Result<()> {
    no_policies(lab)?;
    lab.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: fqdn-rule, namespace: cilium-fin}\nspec:\n  \
         endpointSelector: {matchLabels: {app: frontend}}\n  egress:\n  - toEndpoints: [{matchLabels: {\"k8s:io.kubernetes.pod.namespace\": \
         kube-system, k8s-app: kube-dns}}]\n    toPorts: [{ports: [{port: \"53\", protocol: ANY}], rules: {dns: [{matchPattern: \
         \"*\"}]}}]\n  - toFQDNs: [{matchName: ifconfig.me}, {matchName: backends.cilium-hr.svc.cluster.local}]\n  - toServices: [{k8sService: {serviceName: web, namespace: cilium-web}}]\n",
    )?;
    expect(lab, FIN, ("cilium-fin", "backend"), 80, false)?;
    gets(lab, FIN, "http://ifconfig.me/", 200)?;
    gets(lab, FIN, "http://web.cilium-web/x", 200)?;
    let (body, code) = curl(lab, FIN, "http://134.70.24.1/")?;
    ensure!(code == 0, "no name was asked for that address: {code} {body}");
    // A53: the name may be asked for, and stands for a pod, which stays what it is.
    let (body, code) = curl(lab, FIN, "http://backends.cilium-hr.svc.cluster.local/")?;
    ensure!(code == 0, "a pod is reached by a name: {code} {body}");
    let frontend = pod(lab, FIN.0, FIN.1)?;
    let asked = lab.exec(FIN.0, &frontend, &["getent", "ahostsv4", "backends.cilium-hr.svc.cluster.local"])?.ok()?;
    ensure!(asked.starts_with(&lab.pod_ip(HR.0, &pod(lab, HR.0, HR.1)?)?), "{asked}");
    no_policies(lab)
}

pub fn e0_22(lab: &Lab) -> Result<()> {
    lab.apply(ONLY_NAMES)?;
    expect(lab, HR, FIN, 80, false)?;
    let backend = pod(lab, HR.0, HR.1)?;
    let ask = |name: &str| {
        let asked = lab.exec(HR.0, &backend, &["getent", "ahostsv4", name])?.ok()?;
        asked.split_whitespace().next().map(str::to_owned).with_context(|| format!("an address of {name}"))
    };
    ensure!(ask("ifconfig.me")? == "34.117.118.44");
    ask("web.cilium-web.svc.cluster.local")?;
    ensure!(!lab.connects(HR.0, &backend, "10.96.0.10", 53)?, "DNS by TCP");
    ensure!(!lab.connects(HR.0, &backend, "34.117.118.44", 80)?, "a name that may be asked for is no peer");
    eventually(WITHIN, "the question is told", || {
        let from = format!("cilium-hr/{backend}");
        let told = lab.hubble(&["observe", "--protocol", "dns", "--from-pod", &from, "--last", "40"])?.ok()?;
        ensure!(told.contains("dns-request proxy FORWARDED (DNS Query ifconfig.me. A)"), "{told}");
        Ok(())
    })
}

/// Goes on with the policy of [`e0_22`].
pub fn e0_23(lab: &Lab) -> Result<()> {
    for app in ["frontend", "backend", "pmo"] {
        let labels = in_namespace("cilium-hr", app);
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        ensure!(enforced(lab, &labels)? == "egress", "{app}");
    }
    expect(lab, MFG, HR, 80, true)?;
    no_policies(lab)
}

pub fn e0_28(lab: &Lab) -> Result<()> {
    lab.apply(REQUESTS)?;
    let web = web(lab)?;
    for from in [MFG, FIN, HR] {
        gets(lab, from, &format!("-X PUT http://{web}/downloads"), 403)?;
        gets(lab, from, &format!("http://{web}/downloads"), 200)?;
        let taken = gets(lab, from, &format!("-T /etc/hostname http://{web}/upload"), 201)?;
        ensure!(taken.contains("bytes taken at /upload"), "{taken}");
    }
    expect(lab, MFG, WEB, 81, false)
}

/// Goes on with the policy of [`e0_28`].
pub fn e0_29(lab: &Lab) -> Result<()> {
    let web = web(lab)?;
    for words in ["/upload", "/", "/downloads/x", "/xdownloads", "/downloads?a=b"] {
        let denied = gets(lab, MFG, &format!("http://{web}{words}"), 403)?;
        ensure!(denied.trim_end() == "Access denied", "{words}: {denied}");
    }
    gets(lab, MFG, &format!("-T /etc/hostname http://{web}/downloads"), 403)?;
    let outside = lab.exec(WEB.0, WEB.1, &["curl", "-s", "--max-time", "3", "http://134.70.24.1/"])?.ok()?;
    ensure!(outside.contains("one of the addresses"), "egress of the pod is not touched: {outside}");
    Ok(())
}

/// Goes on with the policy of [`e0_28`].
pub fn e0_30(lab: &Lab) -> Result<()> {
    let plain = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: l4-rule, namespace: cilium-web}\nspec:\n  \
                 endpointSelector: {matchLabels: {app: web}}\n  ingress:\n  - toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]\n";
    lab.apply(plain)?;
    let web = web(lab)?;
    gets(lab, MFG, &format!("http://{web}/upload"), 200)?;
    expect(lab, MFG, WEB, 81, false)?;
    lab.kubectl(&["-n", "cilium-web", "delete", "cnp", "l4-rule"])?.ok()?;
    gets(lab, MFG, &format!("http://{web}/upload"), 403)?;
    no_policies(lab)
}

pub fn e0_31(lab: &Lab) -> Result<()> {
    lab.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: l7-fields, namespace: cilium-web}\nspec:\n  \
         endpointSelector: {matchLabels: {app: web}}\n  ingress:\n  - toPorts:\n    - ports: [{port: \"80\", protocol: TCP}]\n      rules: \
         {http: [{method: GET, path: \"/a.*\", host: \"shop[.]example\", headers: [\"X-Key: yes\", X-Any]}]}\n",
    )?;
    let web = web(lab)?;
    let ask = |path: &str, headers: &[&str], code| {
        let headers: String = headers.iter().map(|header| format!("-H '{header}' ")).collect();
        gets(lab, MFG, &format!("{headers}http://{web}{path}"), code)
    };
    let all = ["Host: shop.example", "X-Key: yes", "X-Any: 1"];
    ask("/b", &all, 403)?;
    ask("/abc", &all, 200)?;
    ask("/abc", &["Host: shop-example", "X-Key: yes", "X-Any: 1"], 403)?;
    ask("/abc", &["Host: shop.example", "X-Key: no", "X-Any: 1"], 403)?;
    ask("/abc", &["Host: shop.example", "X-Key: yes"], 403)?;
    no_policies(lab)
}
