//! Which policies, groups, namespaces and services do texts and objects hold?

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{Document, LIMITS, Lines, Problem, Source, load_documents};
use labels::{Label, source};
use policy::{Known, PolicyKind, PolicyObject, RuleOrigin, Settings};
use serde_json::Value;

use crate::case::Service;

/// A label's key for the name of a group, which follows.
const GROUP_NAME: &str = "io.cilium.policy.cidrgroupname";

/// What was read. A wrong object spares the others.
#[derive(Clone, Default)]
pub struct Objects {
    /// Policies in the order in which they were read.
    pub policies: Vec<Read>,
    /// CiliumCIDRGroups by name: labels and prefixes.
    pub groups: BTreeMap<String, Group>,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Services.
    pub services: Vec<Service>,
    /// Texts and objects that could not be read at all.
    pub problems: Vec<Problem>,
}

/// A policy, or what is wrong with it.
#[derive(Clone)]
pub struct Read {
    /// `CiliumNetworkPolicy default/web`
    pub reference: String,
    /// Where it stood.
    pub source: Source,
    /// As it was written.
    pub value: Value,
    /// The policy.
    pub object: Result<PolicyObject, Vec<Problem>>,
}

/// A CiliumCIDRGroup.
#[derive(Clone, Default)]
pub struct Group {
    /// Its labels.
    pub labels: labels::Labels,
    /// Its prefixes.
    pub prefixes: Vec<ipnet::IpNet>,
}

impl Objects {
    /// Reads a text of YAML or JSON documents.
    pub fn add_text(&mut self, file: &str, text: &str, settings: &Settings) {
        let (documents, problems) = load_documents(file, text, &LIMITS);
        self.problems.extend(problems);
        for document in documents {
            self.add(&document, settings);
        }
    }

    /// Reads a file, and tells rules and what is wrong with the lines at which they stand.
    pub fn add_file(&mut self, file: &str, text: &str, settings: &Settings) {
        let known = self.policies.len();
        self.add_text(file, text, settings);
        let lines = Lines::new(text, &LIMITS);
        let locate = |problem: &mut Problem| {
            problem.source.line = lines.of(&problem.source, &problem.path).or(problem.source.line);
        };
        for Read { object, value, source, .. } in &mut self.policies[known..] {
            match object {
                Err(problems) => problems.iter_mut().for_each(locate),
                Ok(policy) => {
                    policy.warnings.iter_mut().for_each(locate);
                    for rule in &mut policy.rules {
                        let line = lines.of(source, &path_of(value, &rule.origin));
                        Arc::make_mut(&mut rule.origin).line = line.unwrap_or(0);
                    }
                }
            }
        }
    }

    /// Reads what the field `policies` of a case has: a text, an object, or a list of such.
    pub fn add_value(&mut self, value: &Value, settings: &Settings) {
        match value {
            Value::Null => {}
            Value::String(text) => self.add_text("policies", text, settings),
            Value::Array(items) => items.iter().for_each(|item| self.add_value(item, settings)),
            Value::Object(_) => {
                let items = value.get("items").and_then(Value::as_array);
                if let (Some("List"), Some(items)) = (value.get("kind").and_then(Value::as_str), items) {
                    return items.iter().for_each(|item| self.add_value(item, settings));
                }
                self.add(&Document { source: Source::default(), value: value.clone() }, settings);
            }
            Value::Bool(_) | Value::Number(_) => {
                self.problems.push(Problem::at("policies", format!("{value} is neither a text nor an object")));
            }
        }
    }

    fn add(&mut self, document: &Document, settings: &Settings) {
        let Document { source, value } = document;
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
        match kind {
            "CiliumCIDRGroup" => self.group(document, settings),
            "Namespace" => {
                let labels = value.pointer("/metadata/labels").map(string_map).unwrap_or_default();
                self.namespaces.insert(name(value), labels);
            }
            "Service" => self.services.push(service(value)),
            _ if PolicyKind::of(value).is_some() || kind.ends_with("Policy") => {
                let object = PolicyObject::from_value(value, source, settings);
                let (reference, source) = (reference(value), source.clone());
                self.policies.push(Read { reference, source, value: value.clone(), object });
            }
            "" => {
                let message = "an object has apiVersion and kind; this has no kind";
                self.problems.push(Problem::at("kind", message).from_source(source));
            }
            // Other objects say nothing of policy.
            _ => {}
        }
    }

    /// All groups with their labels.
    pub fn all_groups(&self) -> Known {
        Known::of_groups(self.groups.values().flat_map(|group| {
            let prefixes = group.prefixes.iter().copied();
            prefixes.map(|prefix| (group.labels.clone(), prefix))
        }))
    }

    /// The labels that a pod has of the groups with such prefixes: their names, and theirs with and without values.
    pub fn group_labels(&self, holds: impl Fn(&ipnet::IpNet) -> bool) -> Vec<Label> {
        let mut found: Vec<(u8, Label)> = Vec::new();
        for (name, group) in &self.groups {
            let longest = group.prefixes.iter().filter(|prefix| holds(prefix)).map(ipnet::IpNet::prefix_len).max();
            let Some(length) = longest else { continue };
            found.push((length, Label::new(source::CIDR_GROUP, format!("{GROUP_NAME}/{name}"), "")));
            for label in &group.labels {
                let with_value = format!("{}+{}", label.key, label.value);
                found.push((length, Label::new(source::CIDR_GROUP, with_value, "")));
                found.push((length, label.clone()));
            }
        }
        // Of several with one key that of the longest prefix counts, which is the last one.
        found.sort_by_key(|(length, _)| *length);
        found.into_iter().map(|(_, label)| label).collect()
    }

    fn group(&mut self, document: &Document, settings: &Settings) {
        let read = serde_json::from_value::<crds::CiliumCIDRGroup>(document.value.clone());
        let group = match read {
            Ok(group) => group,
            Err(error) => {
                let problem = Problem::at(format!("CiliumCIDRGroup {}", name(&document.value)), error.to_string());
                return self.problems.push(problem.from_source(&document.source));
            }
        };
        let strict = settings.schema == policy::SchemaMode::Reject;
        if let Some(why) = labels::validate::object_name_problem(&name(&document.value)).filter(|_| strict) {
            self.problems.push(Problem::at("metadata.name", why).from_source(&document.source));
        }
        let labels = group.metadata.labels.iter().flatten();
        let labels = labels.filter(|(key, _)| !labels::is_owned_key(key));
        let labels = labels.map(|(key, value)| Label::new(source::CIDR_GROUP, key, value)).collect();
        let mut prefixes = Vec::new();
        for text in &group.spec.external_cidrs {
            match policy::parse_prefix_or_address(text) {
                Some(prefix) => prefixes.push(prefix),
                None => {
                    let path = format!("CiliumCIDRGroup {}", name(&document.value));
                    let problem = Problem::at(path, format!("{text:?} is not a prefix like 192.0.2.0/24"));
                    self.problems.push(problem.from_source(&document.source));
                }
            }
        }
        self.groups.insert(name(&document.value), Group { labels, prefixes });
    }
}

/// Where a rule stands in its object, as `spec.ingress[0]`.
pub fn path_of(object: &Value, rule: &RuleOrigin) -> String {
    let has_spec = object.get("spec").is_some_and(|spec| !spec.is_null());
    let spec = match (has_spec, rule.spec) {
        (true, 0) => "spec".to_owned(),
        (true, spec) => format!("specs[{}]", spec - 1),
        (false, spec) => format!("specs[{spec}]"),
    };
    format!("{spec}.{}[{}]", rule.section(), rule.index)
}

fn name(value: &Value) -> String {
    value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn namespace(value: &Value) -> &str {
    let named = value.pointer("/metadata/namespace").and_then(Value::as_str);
    named.filter(|namespace| !namespace.is_empty()).unwrap_or("default")
}

/// A policy's kind and name, readable or not.
fn reference(value: &Value) -> String {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "CiliumNetworkPolicy" | "NetworkPolicy" => format!("{kind} {}/{}", namespace(value), name(value)),
        _ => format!("{kind} {}", name(value)),
    }
}

fn service(value: &Value) -> Service {
    let texts = |path: &str| value.pointer(path).map(string_map).unwrap_or_default();
    let texts = |path: &str| texts(path).into_iter().map(|(key, value)| (key, crate::case::Text(value))).collect();
    Service {
        name: name(value),
        namespace: namespace(value).to_owned(),
        labels: texts("/metadata/labels"),
        selector: texts("/spec/selector"),
        backends: Vec::new(),
    }
}

fn string_map(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
