//! Stock `kubectl` against the API server, the controllers and pretended nodes.

#![allow(clippy::unwrap_used)]

mod pretend;

use std::path::Path;
use std::process::Output;

use pretend::Cluster;

/// Runs kubectl; None if there is none on this machine.
async fn kubectl(cluster: &Cluster, arguments: &str) -> Option<Output> {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut command = tokio::process::Command::new("kubectl");
    command.args(arguments).env("KUBECONFIG", &cluster.kubeconfig).env("HOME", cluster.kubeconfig.parent().unwrap());
    match command.output().await {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("kubectl: {error}; this test needs one and is skipped");
            None
        }
    }
}

struct Session<'a>(&'a Cluster);

impl Session<'_> {
    /// Runs a command that must succeed; returns what it printed.
    async fn run(&self, arguments: &str) -> String {
        let output = kubectl(self.0, arguments).await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "kubectl {arguments}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail; returns what it said.
    async fn refuse(&self, arguments: &str) -> String {
        let output = kubectl(self.0, arguments).await.unwrap();
        assert!(!output.status.success(), "kubectl {arguments} should fail");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  replicas: 3
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers: [{name: main, image: "img:1", ports: [{name: http, containerPort: 8080}], env: [{name: A, value: "1"}]}]
---
apiVersion: v1
kind: Service
metadata: {name: app}
spec: {selector: {app: app}, ports: [{port: 80, targetPort: http}]}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_lives_from_apply_to_delete() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path(), "127.0.0.1:0", 3).await;
    if kubectl(&cluster, "version --client").await.is_none() {
        return;
    }
    let session = Session(&cluster);
    let file = write(folder.path(), "app.yaml", DEPLOYMENT);
    session.run("create namespace demo").await;
    let applied = session.run(&format!("apply -n demo -f {file}")).await;
    assert_eq!(applied, "deployment.apps/app created\nservice/app created\n");
    session.run("rollout status -n demo deployment/app --timeout=30s").await;
    let pods = session.run("get pods -n demo -o wide").await;
    assert!(pods.starts_with("NAME"), "{pods}");
    let header: Vec<&str> =
        pods.lines().next().unwrap().split("   ").map(str::trim).filter(|text| !text.is_empty()).collect();
    assert_eq!(
        header,
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"]
    );
    assert_eq!(pods.matches("1/1     Running").count(), 3, "{pods}");
    let endpoints = session.run("get endpoints -n demo app -o jsonpath={.subsets[0].ports[0].port}").await;
    assert_eq!(endpoints, "8080");

    let changed =
        write(folder.path(), "app.yaml", &DEPLOYMENT.replace("img:1", "img:2").replace("value: \"1\"", "value: \"2\""));
    assert_eq!(
        session.run(&format!("apply -n demo -f {changed}")).await,
        "deployment.apps/app configured\nservice/app unchanged\n"
    );
    session.run("rollout status -n demo deployment/app --timeout=30s").await;
    session.run("rollout undo -n demo deployment/app").await;
    session.run("rollout status -n demo deployment/app --timeout=30s").await;
    let image = session.run("get deployment -n demo app -o jsonpath={.spec.template.spec.containers[0].image}").await;
    assert_eq!(image, "img:1");

    session.run("scale -n demo deployment/app --replicas=1").await;
    session.run("wait -n demo --for=jsonpath={.status.replicas}=1 deployment/app --timeout=20s").await;
    session.run("label -n demo deployment/app tier=front").await;
    assert_eq!(session.run("get deployment -n demo -l tier=front -o name").await, "deployment.apps/app\n");
    session.run("delete namespace demo --timeout=30s").await;
    let gone = session.refuse("get namespace demo").await;
    assert!(gone.contains("NotFound"), "{gone}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_commands_and_ports_of_pods_are_reached() {
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path(), "127.0.0.1:0", 1).await;
    if kubectl(&cluster, "version --client").await.is_none() {
        return;
    }
    let session = Session(&cluster);
    session.run("wait --for=create serviceaccount/default --timeout=10s").await;
    session.run("run one --image=img --port=8080").await;
    session.run("wait --for=condition=Ready pod/one --timeout=10s").await;
    assert_eq!(session.run("logs one --tail=5").await, "default/one/one tailLines=5\n");
    assert_eq!(session.run("exec one -- echo hello world").await, "hello world\n");
    let failed = session.refuse("exec one -- false").await;
    assert!(failed.contains("exit code 3"), "{failed}");

    let mut command = tokio::process::Command::new("kubectl");
    command.args(["exec", "-i", "one", "--", "cat"]).env("KUBECONFIG", &cluster.kubeconfig);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let text = "0123456789".repeat(20_000);
    let mut input = child.stdin.take().unwrap();
    let written = text.clone();
    tokio::spawn(async move { input.write_all(written.as_bytes()).await });
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.stdout.len(), text.len());
    assert!(output.status.success());

    let mut command = tokio::process::Command::new("kubectl");
    command.args(["port-forward", "pod/one", ":8080"]).env("KUBECONFIG", &cluster.kubeconfig).kill_on_drop(true);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let address = line.split_whitespace().nth(2).unwrap().to_owned();
    for _ in 0..3 {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 64];
        let count = stream.read(&mut answer).await.unwrap();
        assert!(answer[..count].ends_with(b"port 8080\n"));
    }
    cluster.stop().await;
}

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}, {name: Age, type: date, jsonPath: .metadata.creationTimestamp}]
    schema:
      openAPIV3Schema:
        type: object
        description: Something of a size.
        properties:
          spec:
            type: object
            required: [size]
            properties: {size: {type: integer, minimum: 1}, colour: {type: string, enum: [red, blue], default: red}}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_is_served_checked_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path(), "127.0.0.1:0", 1).await;
    if kubectl(&cluster, "version --client").await.is_none() {
        return;
    }
    let session = Session(&cluster);
    let definition = write(folder.path(), "definition.yaml", DEFINITION);
    session.run(&format!("apply -f {definition}")).await;
    session.run("wait --for=condition=Established crd/widgets.example.org --timeout=10s").await;
    let widget = |size: &str| {
        format!("apiVersion: example.org/v1\nkind: Widget\nmetadata: {{name: one}}\nspec: {{size: {size}}}\n")
    };
    let file = write(folder.path(), "widget.yaml", &widget("7"));
    session.run(&format!("apply -f {file}")).await;
    let table = session.run("get wd").await;
    let words: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(words[..5], ["NAME", "SIZE", "AGE", "one", "7"], "{table}");
    assert_eq!(session.run("get wd one -o jsonpath={.spec.colour}").await, "red");
    assert!(session.run("explain widget").await.contains("Something of a size."));
    let bad = write(folder.path(), "bad.yaml", &widget("0"));
    let refused = session.refuse(&format!("apply -f {bad}")).await;
    assert!(refused.contains("spec.size: Invalid value: 0"), "{refused}");
    let unknown = write(folder.path(), "unknown.yaml", &widget("1, shape: round"));
    let refused = session.refuse(&format!("apply -f {unknown}")).await;
    assert!(refused.contains("unknown field \"spec.shape\""), "{refused}");
    session.run(&format!("apply --server-side --field-manager=other --force-conflicts -f {file}")).await;
    session.run(&format!("delete -f {definition}")).await;
    session.refuse("get widgets").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_a_thousand_pods_are_quick_and_watches_tell_at_once() {
    use futures::TryStreamExt as _;
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use kube::Api;
    use kube::api::{PostParams, WatchEvent, WatchParams};
    use std::time::{Duration, Instant};
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path(), "127.0.0.1:0", 0).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "kube-public");
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::namespaced(cluster.client.clone(), "kube-public");
    while accounts.get_opt("default").await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let make = |index: usize| {
        let pod = serde_json::json!({"metadata": {"name": format!("p{index}"), "labels": {"app": "x"}},
            "spec": {"nodeName": "", "schedulerName": "nobody", "containers": [{"name": "c", "image": "i"}]}});
        let (pods, pod) = (pods.clone(), serde_json::from_value(pod).unwrap());
        async move { pods.create(&PostParams::default(), &pod).await.unwrap() }
    };
    for start in (0..1000).step_by(50) {
        futures::future::join_all((start..start + 50).map(make)).await;
    }
    let url = "/api/v1/namespaces/kube-public/pods";
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        let request = kube::core::Request::new(url).list(&kube::api::ListParams::default()).unwrap();
        let text = cluster.client.request_text(request).await.unwrap();
        best = best.min(begun.elapsed());
        assert!(text.len() > 1_000_000);
    }
    eprintln!("list of 1,000 pods: {best:?}");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let mut stream = Box::pin(maps.watch(&WatchParams::default(), "0").await.unwrap());
    let mut slowest = Duration::ZERO;
    for index in 0..20 {
        let name = format!("m{index}");
        let map = serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).unwrap();
        let begun = Instant::now();
        maps.create(&PostParams::default(), &map).await.unwrap();
        loop {
            let event = stream.try_next().await.unwrap().unwrap();
            if matches!(&event, WatchEvent::Added(map) if map.metadata.name.as_deref() == Some(&name)) {
                break;
            }
        }
        slowest = slowest.max(begun.elapsed());
    }
    eprintln!("from create to watch: at most {slowest:?}");
    assert!(slowest < Duration::from_secs(2));
    cluster.stop().await;
}
