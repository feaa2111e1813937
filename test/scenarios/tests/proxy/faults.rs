//! What happens to requests when a proxy is replaced or dies, or when nothing can be written any more?

use crate::{WITHIN, asked, asks, expect, hosts, knock, no_policies};
use anyhow::{Context, Result, ensure};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use testbed::{Lab, eventually, processes};

/// A second proxy beside the one of the DaemonSet. It is not started again once another has taken over from it.
const NEXT: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: next, namespace: kube-system}\nspec:\n  nodeName: proxy-worker\n  \
                    hostNetwork: true\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: \
                    quay.io/cilium/cilium:v1.20.2\n    command: [axoneme, proxy]\n    securityContext: {privileged: true}\n    \
                    volumeMounts:\n    - {name: maps, mountPath: /sys/fs/bpf, mountPropagation: HostToContainer}\n    - {name: run, \
                    mountPath: /var/run/cilium}\n  volumes:\n  - {name: maps, hostPath: {path: /sys/fs/bpf}}\n  - {name: run, \
                    hostPath: {path: /var/run/cilium}}\n";

/// The codes of all answers, `000` for none.
fn codes(child: Child) -> Result<Vec<String>> {
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter(|line| *line != "failed").map(str::to_owned).collect())
}

pub fn taken_over(lab: &Lab) -> Result<()> {
    lab.apply(&asked(&["/clientip"]))?;
    let host = hosts(lab, "server")?.remove(0);
    let (good, bad) = (format!("http://{host}:8080/clientip"), format!("http://{host}:8080/hostname"));
    expect(lab, "far", &bad, 403)?;
    let first = processes::proxy("proxy-worker")?;
    let (allowed, denied) = (knock(lab, "near", &good, 8)?, knock(lab, "far", &bad, 8)?);
    std::thread::sleep(Duration::from_secs(1));
    lab.apply(NEXT)?;
    // The first ends once the next one serves, is started again, and takes over in its turn.
    eventually(WITHIN, "the next one has served and ended", || {
        let pod = lab.get(&["-n", "kube-system", "pod", "next"])?;
        ensure!(pod["status"]["phase"] == "Succeeded", "{}", pod["status"]["phase"]);
        Ok(())
    })?;
    let last = processes::proxy("proxy-worker")?;
    ensure!(last.pid != first.pid, "the first one still runs");
    for (child, code) in [(allowed, "200"), (denied, "403")] {
        let all = codes(child)?;
        let right = all.iter().filter(|found| *found == code).count();
        ensure!(all.len() > 20 && all.len() == right, "{right} of {} answers are {code}: {all:?}", all.len());
    }
    expect(lab, "near", &good, 200)?;
    lab.kubectl(&["-n", "kube-system", "delete", "pod", "next"])?.ok()?;
    no_policies(lab)
}

pub fn proxy_killed(lab: &Lab) -> Result<()> {
    lab.apply(&asks("far", &["/clientip"]))?;
    let host = hosts(lab, "server")?.remove(0);
    let (good, bad) = (format!("http://{host}:8080/clientip"), format!("http://{host}:8080/hostname"));
    expect(lab, "far", &bad, 403)?;
    let (allowed, denied) = (knock(lab, "far", &good, 7)?, knock(lab, "far", &bad, 7)?);
    let mut others = lab.command("kubectl");
    let far = lab.pod_ip("default", "far")?;
    others.args(["exec", "near", "--", "ping", "-q", "-i", "0.2", "-c", "25", "-W", "1", &far]);
    let others = others.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start kubectl")?;
    std::thread::sleep(Duration::from_secs(2));
    let killed = processes::proxy("proxy-control-plane")?;
    processes::signal(&killed, "KILL")?;
    let since = Instant::now();
    eventually(WITHIN, "another proxy", || {
        ensure!(processes::proxy("proxy-control-plane")?.pid != killed.pid, "none yet");
        Ok(())
    })?;
    expect(lab, "far", &good, 200)?;
    let back = since.elapsed();
    let (allowed, denied) = (codes(allowed)?, codes(denied)?);
    // What is not answered by the proxy is not answered at all.
    ensure!(denied.iter().all(|code| ["403", "000"].contains(&code.as_str())), "{denied:?}");
    ensure!(allowed.iter().all(|code| ["200", "503", "000"].contains(&code.as_str())), "{allowed:?}");
    for (codes, code) in [(&allowed, "200"), (&denied, "403")] {
        ensure!(codes.len() > 20 && codes.last().is_some_and(|last| last == code), "it is served again: {codes:?}");
    }
    ensure!(back < Duration::from_secs(5), "it took {back:?}");
    let text = String::from_utf8_lossy(&others.wait_with_output()?.stdout).into_owned();
    ensure!(text.contains(" 0% packet loss"), "what no rule redirects goes on: {text}");
    no_policies(lab)
}

/// Mounts a file system with no room over the folder in which the agent remembers things.
pub fn disk_full(lab: &Lab) -> Result<()> {
    let agent = lab.agent_on("proxy-worker")?;
    let inside = |script: &str| {
        lab.kubectl(&["-n", "kube-system", "exec", &agent, "-c", "cilium-agent", "--", "sh", "-c", script])?.ok()
    };
    let folder = "/var/run/cilium/state";
    inside(&format!(
        "mount -t tmpfs -o size=4k tmpfs {folder} && head -c 4096 /dev/zero > {folder}/full && ! echo more > {folder}/more"
    ))?;
    let names = "egress:\n  - toPorts: [{ports: [{port: \"53\", protocol: ANY}], rules: {dns: [{matchPattern: \"*\"}]}}]\n  - toFQDNs: \
                 [{matchName: ifconfig.me}]\n";
    lab.apply(&asked(&["/hostname"]))?;
    lab.apply(&crate::policy("near", names))?;
    let host = hosts(lab, "server")?.remove(0);
    expect(lab, "far", &format!("http://{host}:8080/clientip"), 403)?;
    expect(lab, "far", &format!("http://{host}:8080/hostname"), 200)?;
    expect(lab, "near", "http://ifconfig.me/", 200)?;
    expect(lab, "near", "http://134.70.24.1/", 0)?;
    eventually(WITHIN, "the agent says so", || {
        let log = lab.kubectl(&["-n", "kube-system", "logs", &agent, "-c", "cilium-agent", "--tail", "40"])?.ok()?;
        ensure!(log.contains("names cannot be remembered") && log.contains("No space left on device"), "{log}");
        Ok(())
    })?;
    inside(&format!("umount {folder}"))?;
    no_policies(lab)
}
