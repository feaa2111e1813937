//! Do jobs, stateful sets and definitions of kinds behave as users of kubectl know them?

use anyhow::{Context, Result, ensure};
use std::process::ExitCode;
use std::time::Duration;
use testbed::{Lab, Plan, eventually, trials};

const PLAN: Plan<'static> = Plan { name: "workloads", nodes: 2, options: &[] };
const WITHIN: Duration = Duration::from_secs(40);

const DATABASE: &str = "
apiVersion: v1
kind: Service
metadata: {name: dbs}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: main, image: client, command: [sleep, infinity]}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: dbs
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: echo, readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}}
";

fn main() -> ExitCode {
    trials::run(
        &PLAN,
        |_| Ok(()),
        &[
            ("a_job_runs_to_its_end", job),
            ("a_job_that_fails_says_so", failing_job),
            ("pods_of_a_stateful_set_have_names_and_dns_names", stateful_set),
            ("a_pod_of_a_stateful_set_comes_back_under_its_name", comes_back),
            ("a_stateful_set_scales_and_rolls_from_the_end", scales),
            ("what_a_program_that_is_soon_over_says_is_seen_by_who_attaches", short_programs),
            ("a_definition_with_rules_in_cel_warns", cel),
            ("any_of_and_one_of_are_kept", combinations),
        ],
    )
}

fn job(lab: &Lab) -> Result<()> {
    // A namespace has its service account a moment after it was made.
    eventually(WITHIN, "created", || {
        lab.kubectl(&["create", "job", "hello", "--image=busybox", "--", "sh", "-c", "echo done by $HOSTNAME"])?.ok()
    })?;
    lab.kubectl(&["wait", "--for=condition=complete", "job/hello", "--timeout=40s"])?.ok()?;
    let table = lab.kubectl(&["get", "jobs"])?.ok()?;
    let words: Vec<&str> = table.split_whitespace().collect();
    ensure!(words[..5] == ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"], "{table}");
    ensure!(words[5..8] == ["hello", "Complete", "1/1"], "{table}");
    let log = lab.kubectl(&["logs", "job/hello"])?.ok()?;
    ensure!(log.starts_with("done by hello-"), "{log}");
    lab.kubectl(&["delete", "job", "hello"])?.ok()?;
    eventually(WITHIN, "its pods are gone with it", || {
        let left = lab.pods("default", "job-name=hello")?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

/// `kubectl run -i` attaches to a program that may be over by then.
fn short_programs(lab: &Lab) -> Result<()> {
    for number in 0..5 {
        let name = format!("short-{number}");
        let run = ["run", &name, "--image=busybox", "--restart=Never", "-i", "--rm", "--", "echo", "said at once"];
        let said = lab.kubectl(&run)?.ok()?;
        ensure!(said.lines().filter(|line| line.starts_with("said at once")).count() == 1, "{said}");
    }
    Ok(())
}

fn failing_job(lab: &Lab) -> Result<()> {
    lab.apply(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {name: fails}\nspec:\n  backoffLimit: 0\n  template:\n    spec: {restartPolicy: Never, \
         containers: [{name: main, image: busybox, command: [sh, -c, exit 3]}]}\n",
    )?;
    lab.kubectl(&["wait", "--for=condition=failed", "job/fails", "--timeout=40s"])?.ok()?;
    let job = lab.get(&["job", "fails"])?;
    ensure!(job["status"]["conditions"][0]["reason"] == "BackoffLimitExceeded", "{}", job["status"]);
    let refused = lab.pipe(
        &["apply", "-f", "-"],
        "apiVersion: batch/v1\nkind: Job\nmetadata: {name: odd}\nspec:\n  template:\n    spec: {containers: [{name: main, image: busybox}]}\n",
    )?;
    ensure!(refused.failed()?.contains("spec.template.spec.restartPolicy"), "a policy of Always is accepted");
    Ok(())
}

fn stateful_set(lab: &Lab) -> Result<()> {
    lab.apply(DATABASE)?;
    lab.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"])?.ok()?;
    lab.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=40s"])?.ok()?;
    let table = lab.kubectl(&["get", "sts"])?.ok()?;
    let words: Vec<&str> = table.split_whitespace().collect();
    ensure!(words[..3] == ["NAME", "READY", "AGE"] && words[3..5] == ["db", "2/2"], "{table}");
    for pod in ["db-0", "db-1"] {
        let address = lab.pod_ip("default", pod)?;
        eventually(WITHIN, &format!("the name of {pod}"), || {
            let text = lab.exec("default", "client", &["getent", "ahostsv4", &format!("{pod}.dbs")])?.ok()?;
            ensure!(text.split_whitespace().next() == Some(&address), "{text}");
            Ok(())
        })?;
        let page =
            lab.exec("default", "client", &["curl", "-s", "--max-time", "5", &format!("http://{pod}.dbs/")])?.ok()?;
        ensure!(page.contains(&format!("host name: {pod}")), "{page}");
    }
    Ok(())
}

fn comes_back(lab: &Lab) -> Result<()> {
    let before = lab.get(&["pod", "db-0"])?["metadata"]["uid"].clone();
    lab.kubectl(&["delete", "pod", "db-0"])?.ok()?;
    eventually(WITHIN, "db-0 is another one", || {
        let pod = lab.get(&["pod", "db-0"])?;
        ensure!(pod["metadata"]["uid"] != before, "still the old one");
        Ok(())
    })?;
    lab.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"])?.ok()?;
    Ok(())
}

fn scales(lab: &Lab) -> Result<()> {
    lab.kubectl(&["scale", "statefulset", "db", "--replicas=3"])?.ok()?;
    lab.kubectl(&["wait", "--for=jsonpath={.status.readyReplicas}=3", "statefulset/db", "--timeout=60s"])?.ok()?;
    lab.kubectl(&["scale", "statefulset", "db", "--replicas=1"])?.ok()?;
    eventually(WITHIN, "only db-0 is left", || {
        let pods = lab.pods("default", "app=db")?;
        ensure!(pods == ["db-0"], "{pods:?}");
        Ok(())
    })?;
    lab.kubectl(&["set", "env", "statefulset/db", "NEW=1"])?.ok()?;
    lab.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"])?.ok()?;
    let environment = lab.exec("default", "db-0", &["sh", "-c", "echo $NEW"])?.ok()?;
    ensure!(environment.trim() == "1", "the old template still runs");
    Ok(())
}

const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: things, kind: Thing}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-validations: [{rule: \"self.a != self.b\"}]
            properties: {a: {type: integer}, b: {type: string}, c: {anyOf: [{type: integer}, {type: string}], x-kubernetes-int-or-string: true}}
            oneOf: [{required: [a]}, {required: [b]}]
";

fn cel(lab: &Lab) -> Result<()> {
    let applied = lab.pipe(&["apply", "-f", "-"], DEFINITION)?;
    ensure!(applied.stderr.contains("Warning: ") && applied.stderr.contains("x-kubernetes-validations"), "{applied:?}");
    applied.ok().map(drop)
}

/// Runs after [`cel`], which makes the kind.
fn combinations(lab: &Lab) -> Result<()> {
    let thing = |spec: &str| format!("apiVersion: example.org/v1\nkind: Thing\nmetadata: {{name: t}}\nspec: {spec}\n");
    eventually(WITHIN, "the kind is served", || lab.apply(&thing("{a: 1, c: x}")))?;
    for (spec, why) in [("{a: 1, b: x}", "oneOf"), ("{}", "oneOf"), ("{a: x}", "integer")] {
        let refused = lab.pipe(&["replace", "-f", "-"], &thing(spec))?.failed().with_context(|| spec.to_string())?;
        ensure!(refused.contains(why), "{spec}: {refused}");
    }
    Ok(())
}
