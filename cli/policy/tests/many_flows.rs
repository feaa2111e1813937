//! Are many flows judged alike however they are handed in, and without memory for each?
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use counting::{Counting, allocations};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CLUSTER: &str = "
config: {audit: false}
policies:
- apiVersion: cilium.io/v2
  kind: CiliumNetworkPolicy
  metadata: {name: web, namespace: default}
  spec:
    endpointSelector: {matchLabels: {app: web}}
    ingress:
    - fromEndpoints: [{matchLabels: {app: db}}]
      toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]
    - fromCIDR: [192.0.2.0/24]
endpoints:
- {name: web, labels: {app: web}, ips: [10.0.0.1]}
- {name: db, labels: {app: db}, ips: [10.0.0.2]}
- {name: far, namespace: other, labels: {app: far}}
- {name: there, labels: {app: db}, remote: true}
nodes: [{name: n1, ips: [172.18.0.2], local: true}]
dns: [{name: A.example.com., ips: [192.0.2.7]}]
";

/// Lines as they should be, as they may be, and as they must not be.
const LINES: &[&str] = &[
    r#"{"id":"1","src":"db","dst":"web","port":80}"#,
    r#"{"id":"2","src":"default/db","dst":"10.0.0.1","proto":"UDP","port":80}"#,
    r#"{"id":3,"src":"dns:a.example.com","dst":"web","port":443,"direction":"ingress"}"#,
    r#"{"id":4.5,"src":"dns:A.Example.com.","dst":"web","port":443}"#,
    r#"{"id":true,"src":"node:n1","dst":"web","proto":6,"port":1}"#,
    r#"{"id":null,"src":"other/far","dst":"web","proto":"ICMP","icmp_type":8}"#,
    r#"{"id":"q\"\u00e9\n\\","src":"there","dst":"web","port":80,"icmp_type":null}"#,
    r#"{"id":"x","s\u0072c":"reserved:world","dst":"web","port":80,"more":{"a":[null]}}"#,
    r#"{"id":"twice","src":"db","dst":"web","port":80,"port":81}"#,
    r#"{"id":"e1","src":"nobody","dst":"web"}"#,
    r#"{"id":"e2","src":"db","dst":"web","direction":"up"}"#,
    r#"{"id":"e3","src":"db","dst":"web","proto":"NONE"}"#,
    r#"{"src":"db","dst":"web","ipv6":true,"port":65535}"#,
    r#"["a","db","web","TCP",80,null,"both",false]"#,
];

const WRONG: &[&str] = &[r#"{"port":"80"}"#, "{", "null", r#"{"id":"\ud800"}"#, r#"{"port":65536}"#, "[[1]]"];

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, lines: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("axoneme-flows-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cluster.yaml"), CLUSTER).unwrap();
        fs::write(folder.join("flows.jsonl"), lines).unwrap();
        Folder(folder)
    }

    /// A result for each line, and how often memory was asked for.
    fn eval(&self, threads: &str) -> (Vec<String>, u64) {
        let file = |name: &str| self.0.join(name).to_str().unwrap().to_owned();
        let (cluster, flows) = (file("cluster.yaml"), file("flows.jsonl"));
        let before = allocations();
        let (text, well) =
            cli_policy::answer(&["eval", "--cluster", &cluster, "--flows", &flows, "--threads", threads]).unwrap();
        assert!(well);
        let asked = allocations() - before;
        (text.lines().map(str::to_owned).collect(), asked)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a case with this one flow says of it, which goes the way of values.
fn alone(line: &str) -> String {
    let mut case: Value = serde_saphyr::from_str(CLUSTER).unwrap();
    case["flows"] = json!([serde_json::from_str::<Value>(line).unwrap()]);
    let result: Value = serde_json::from_str(&cli_policy::judge_value(case, None)).unwrap();
    assert_eq!(result.get("error"), None, "{line}: {result}");
    result["flows"][0].to_string()
}

#[test]
fn flows_in_lines_in_cases_and_by_threads_get_the_same_results() {
    let expected: Vec<String> = LINES.iter().map(|line| alone(line)).collect();
    for (threads, copies) in [("1", 1), ("1", 300), ("3", 300)] {
        let lines = LINES.join("\n") + "\n\n  \n";
        let (found, _) = Folder::new(&format!("same-{threads}-{copies}"), &lines.repeat(copies)).eval(threads);
        assert_eq!(found.len(), LINES.len() * copies);
        for (at, found) in found.iter().enumerate() {
            assert_eq!(*found, expected[at % LINES.len()], "{}", LINES[at % LINES.len()]);
        }
    }
}

#[test]
fn lines_that_are_no_flows_spare_the_others() {
    let lines: Vec<&str> = WRONG.iter().flat_map(|wrong| [*wrong, LINES[0]]).collect();
    let (found, _) = Folder::new("wrong", &lines.join("\n")).eval("2");
    for (pair, wrong) in found.chunks(2).zip(WRONG) {
        assert!(pair[0].starts_with(r#"{"verdict":"ERROR","error":"this is not a flow: "#), "{wrong}: {}", pair[0]);
        assert_eq!(pair[1], alone(LINES[0]));
    }
}

#[test]
fn flows_need_no_memory_of_their_own() {
    let plain = [LINES[0], LINES[1], LINES[12]].join("\n") + "\n";
    // The first run reads what the second one remembers.
    let [_, (few, base), (many, all)] =
        [100, 100, 2100].map(|copies| Folder::new("memory", &plain.repeat(copies)).eval("1"));
    let flows = many.len() - few.len();
    let each = (all as f64 - base as f64) / flows as f64;
    assert!(each < 0.05, "{each} allocations for each flow");
}
