//! How does the state of an installation look?

use std::collections::BTreeMap;
use std::fmt::Write;

use flow::print::clean;
use k8s_openapi::api::core::v1::Pod;

/// A DaemonSet or a Deployment of the installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// `DaemonSet` or `Deployment`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Desired, ready, available.
    pub counts: [i32; 3],
}

impl Component {
    /// From its counts.
    pub fn new(kind: &'static str, name: &str, counts: [i32; 3]) -> Self {
        Component { kind, name: name.into(), counts }
    }

    fn is_well(&self) -> bool {
        self.counts[1..].iter().all(|count| *count >= self.counts[0])
    }
}

/// What is known of an installation.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its parts.
    pub components: Vec<Component>,
    /// Pods of its namespace.
    pub pods: Vec<Pod>,
    /// Pods with a CiliumEndpoint.
    pub managed: usize,
    /// Pods that could have one.
    pub pool: usize,
}

impl Report {
    fn named(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|component| component.name == name)
    }

    /// Agents and operator are there, and everything that is there is well.
    pub fn is_well(&self) -> bool {
        self.named("cilium").is_some()
            && self.named("cilium-operator").is_some()
            && self.components.iter().all(Component::is_well)
    }

    fn word(&self, name: &str, without: &'static str) -> String {
        match self.named(name) {
            None => without.into(),
            Some(component) if component.is_well() => "OK".into(),
            Some(component) => {
                let missing = component.counts[0] - component.counts[1];
                format!("{missing} errors")
            }
        }
    }
}

/// Pods that have a network of their own and run (or will).
pub fn counts(pod: &Pod) -> bool {
    let host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !host && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// The labels by which the parts' pods are found.
fn label_of(component: &str) -> (&'static str, &str) {
    match component {
        "cilium-operator" => ("io.cilium/app", "operator"),
        other => ("k8s-app", other),
    }
}

fn pods_of<'a>(report: &'a Report, component: &str) -> Vec<&'a Pod> {
    let (key, value) = label_of(component);
    let has = |pod: &&Pod| pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|v| v == value);
    report.pods.iter().filter(has).collect()
}

/// The logo with the state of each part, then the parts, their containers and images.
pub fn render(report: &Report) -> String {
    let mut text = String::from("    /¯¯\\\n");
    let hubble = report.word("hubble-relay", "disabled");
    for (logo, name, word) in [
        (" /¯¯\\__/¯¯\\ ", "Cilium:", report.word("cilium", "not installed")),
        (" \\__/¯¯\\__/ ", "Operator:", report.word("cilium-operator", "not installed")),
        (" /¯¯\\__/¯¯\\ ", "Hubble:", hubble),
        (" \\__/¯¯\\__/ ", "ClusterMesh:", "disabled".into()),
    ] {
        let _ = writeln!(text, "{logo}   {name:<16}{word}");
    }
    text.push_str("    \\__/\n\n");
    for component in &report.components {
        let [desired, ready, available] = component.counts;
        let counts = format!("Desired: {desired}, Ready: {ready}/{desired}, Available: {available}/{desired}");
        let _ = writeln!(text, "{:<17} {:<18} {counts}", component.kind, component.name);
    }
    containers(report, &mut text);
    let _ = writeln!(text, "{:<17} {}/{} managed by Cilium", "Cluster Pods:", report.managed, report.pool);
    images(report, &mut text);
    text
}

fn containers(report: &Report, text: &mut String) {
    for (at, component) in report.components.iter().enumerate() {
        let mut phases: BTreeMap<String, usize> = BTreeMap::new();
        for pod in pods_of(report, &component.name) {
            let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
            let phase = phase.unwrap_or_else(|| "Unknown".into());
            *phases.entry(clean(&phase).into_owned()).or_default() += 1;
        }
        let phases: Vec<String> = phases.into_iter().map(|(phase, count)| format!("{phase}: {count}")).collect();
        let title = if at == 0 { "Containers:" } else { "" };
        let _ = writeln!(text, "{title:<17} {:<18} {}", component.name, phases.join(", "));
    }
}

fn images(report: &Report, text: &mut String) {
    let mut title = "Image versions";
    for component in &report.components {
        let mut images: BTreeMap<String, usize> = BTreeMap::new();
        for pod in pods_of(report, &component.name) {
            for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
                let image = container.image.as_deref().unwrap_or_default();
                *images.entry(clean(image).into_owned()).or_default() += 1;
            }
        }
        for (image, count) in images {
            let _ = writeln!(text, "{title:<17} {:<18} {image}: {count}", component.name);
            title = "";
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a48_names_of_others_do_not_move_the_terminal() {
        let value = serde_json::json!({
            "metadata": {"labels": {"k8s-app": "cilium"}},
            "spec": {"containers": [{"name": "c", "image": "agent\u{1b}]0;title\u{7}:1\rOK"}]},
            "status": {"phase": "Running\u{1b}[1A"},
        });
        let components = vec![Component::new("DaemonSet", "cilium", [1, 1, 1])];
        let report = Report { components, pods: vec![serde_json::from_value(value).unwrap()], ..Report::default() };
        let text = render(&report);
        assert!(text.contains("agent^[]0;title^G:1\\rOK: 1") && text.contains("Running^[[1A: 1"), "{text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }

    #[test]
    fn an_installation_that_is_well() {
        let pod = |label: (&str, &str), image: &str| -> Pod {
            let labels: BTreeMap<&str, &str> = [label].into();
            let value = serde_json::json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}, "status": {"phase": "Running"}});
            serde_json::from_value(value).unwrap()
        };
        let report = Report {
            components: vec![
                Component::new("DaemonSet", "cilium", [3, 3, 3]),
                Component::new("Deployment", "cilium-operator", [1, 1, 1]),
                Component::new("Deployment", "hubble-relay", [1, 1, 1]),
            ],
            pods: vec![
                pod(("k8s-app", "cilium"), "agent:1"),
                pod(("k8s-app", "cilium"), "agent:1"),
                pod(("io.cilium/app", "operator"), "operator:1"),
            ],
            managed: 15,
            pool: 18,
        };
        let expected = r"    /¯¯\
 /¯¯\__/¯¯\    Cilium:         OK
 \__/¯¯\__/    Operator:       OK
 /¯¯\__/¯¯\    Hubble:         OK
 \__/¯¯\__/    ClusterMesh:    disabled
    \__/

DaemonSet         cilium             Desired: 3, Ready: 3/3, Available: 3/3
Deployment        cilium-operator    Desired: 1, Ready: 1/1, Available: 1/1
Deployment        hubble-relay       Desired: 1, Ready: 1/1, Available: 1/1
Containers:       cilium             Running: 2
                  cilium-operator    Running: 1
                  hubble-relay       
Cluster Pods:     15/18 managed by Cilium
Image versions    cilium             agent:1: 2
                  cilium-operator    operator:1: 1
";
        assert!(report.is_well());
        assert_eq!(
            render(&report).lines().map(str::trim_end).collect::<Vec<_>>(),
            expected.lines().map(str::trim_end).collect::<Vec<_>>()
        );
    }
}
