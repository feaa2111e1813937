//! Which rules does an object say, and what is wrong with it?

mod cilium;
mod cluster;
mod icmp;
mod l7;
mod network_policy;
mod peers;
mod ports;
pub mod prefix;

use std::sync::OnceLock;

use crds::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, ClusterNetworkPolicy, NetworkPolicy, Problem, Source};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use ports::is_service_name as is_port_name;

use crate::origin::{PolicyKind, PolicyRef};
use crate::rule::{PolicyObject, Rule};
use crate::settings::{SchemaMode, Settings};

/// Collects what is wrong while an object is read, so that its author sees all of it at once.
pub(crate) struct Reader<'a> {
    settings: &'a Settings,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// What all rules of an object have in common.
pub(crate) struct Owner<'a> {
    reference: &'a PolicyRef,
    uid: &'a str,
}

impl Reader<'_> {
    fn refuse(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::at(path, message));
    }

    fn warn(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.warnings.push(Problem::at(path, message));
    }
}

impl Reader<'_> {
    /// An API server stores no object of another name. `namespace` is empty where there is none.
    fn check_names(&mut self, name: &str, namespace: &str) {
        if let Some(why) = labels::validate::object_name_problem(name) {
            self.refuse("metadata.name", why);
        }
        if let Some(why) = labels::validate::namespace_problem(namespace).filter(|_| !namespace.is_empty()) {
            self.refuse("metadata.namespace", why);
        }
    }
}

impl PolicyKind {
    /// The kind of an object that is a policy of ours.
    pub fn of(value: &Value) -> Option<PolicyKind> {
        let field = |name: &str| value.get(name).and_then(Value::as_str);
        match (field("apiVersion")?, field("kind")?) {
            ("cilium.io/v2", "CiliumNetworkPolicy") => Some(PolicyKind::CiliumNetworkPolicy),
            ("cilium.io/v2", "CiliumClusterwideNetworkPolicy") => Some(PolicyKind::CiliumClusterwideNetworkPolicy),
            ("networking.k8s.io/v1", "NetworkPolicy") => Some(PolicyKind::NetworkPolicy),
            ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy") => Some(PolicyKind::ClusterNetworkPolicy),
            _ => None,
        }
    }
}

impl PolicyObject {
    /// Reads an object of one of the kinds of policies. Everything that is wrong with it is told at once; fields that
    /// are not known are wrong, because what they would narrow must not be wider.
    pub fn from_value(value: &Value, source: &Source, settings: &Settings) -> Result<PolicyObject, Vec<Problem>> {
        let read = match PolicyKind::of(value) {
            Some(PolicyKind::CiliumNetworkPolicy) => {
                typed::<CiliumNetworkPolicy>(value, schema_of::<CiliumNetworkPolicy>(&CNP), settings, Self::from_cnp)
            }
            Some(PolicyKind::CiliumClusterwideNetworkPolicy) => {
                let schema = schema_of::<CiliumClusterwideNetworkPolicy>(&CCNP);
                typed::<CiliumClusterwideNetworkPolicy>(value, schema, settings, Self::from_ccnp)
            }
            Some(PolicyKind::NetworkPolicy) => {
                let schema = schema_of::<NetworkPolicy>(&KNP);
                typed::<NetworkPolicy>(&without_nulls(value), schema, settings, Self::from_network_policy)
            }
            Some(PolicyKind::ClusterNetworkPolicy) => {
                let schema = schema_of::<ClusterNetworkPolicy>(&KCNP);
                typed::<ClusterNetworkPolicy>(value, schema, settings, Self::from_cluster_network_policy)
            }
            None => Err(vec![not_a_policy(value)]),
        };
        match read {
            Ok(policy) => {
                let warnings = policy.warnings.into_iter().map(|one| one.from_source(source)).collect();
                Ok(PolicyObject { source: source.clone(), warnings, ..policy })
            }
            Err(problems) => Err(problems.into_iter().map(|one| one.from_source(source)).collect()),
        }
    }

    /// Reads a namespaced policy.
    pub fn from_cnp(policy: &CiliumNetworkPolicy, settings: &Settings) -> Result<PolicyObject, Vec<Problem>> {
        let metadata = &policy.metadata;
        let namespace = namespace_or_default(metadata.namespace.as_deref());
        let kind = PolicyKind::CiliumNetworkPolicy;
        assemble(kind, namespace, metadata, settings, |reader, owner| {
            reader.cilium(owner, policy.spec.as_ref(), policy.specs.as_deref())
        })
    }

    /// Reads a clusterwide policy.
    pub fn from_ccnp(
        policy: &CiliumClusterwideNetworkPolicy,
        settings: &Settings,
    ) -> Result<PolicyObject, Vec<Problem>> {
        let kind = PolicyKind::CiliumClusterwideNetworkPolicy;
        assemble(kind, "", &policy.metadata, settings, |reader, owner| {
            reader.cilium(owner, policy.spec.as_ref(), policy.specs.as_deref())
        })
    }

    /// Reads a policy of Kubernetes' own kind.
    pub fn from_network_policy(policy: &NetworkPolicy, settings: &Settings) -> Result<PolicyObject, Vec<Problem>> {
        let metadata = &policy.metadata;
        let namespace = namespace_or_default(metadata.namespace.as_deref());
        assemble(PolicyKind::NetworkPolicy, namespace, metadata, settings, |reader, owner| {
            reader.network_policy(owner, policy.spec.as_ref())
        })
    }

    /// Reads a policy of the cluster's administrators.
    pub fn from_cluster_network_policy(
        policy: &ClusterNetworkPolicy,
        settings: &Settings,
    ) -> Result<PolicyObject, Vec<Problem>> {
        assemble(PolicyKind::ClusterNetworkPolicy, "", &policy.metadata, settings, |reader, owner| {
            reader.cluster_network_policy(owner, &policy.spec)
        })
    }
}

static CNP: OnceLock<Value> = OnceLock::new();
static CCNP: OnceLock<Value> = OnceLock::new();
static KNP: OnceLock<Value> = OnceLock::new();
static KCNP: OnceLock<Value> = OnceLock::new();

/// The schema of a type, made once.
fn schema_of<T: crds::schema::Schema>(cell: &'static OnceLock<Value>) -> &'static Value {
    cell.get_or_init(crds::schema::structural::<T>)
}

fn typed<T: DeserializeOwned>(
    value: &Value,
    schema: &Value,
    settings: &Settings,
    read: impl Fn(&T, &Settings) -> Result<PolicyObject, Vec<Problem>>,
) -> Result<PolicyObject, Vec<Problem>> {
    let misfits = match settings.schema {
        SchemaMode::Off => Vec::new(),
        SchemaMode::Reject | SchemaMode::Warn => crds::schema::check(value, schema),
    };
    let (mut problems, warnings) = match settings.schema {
        SchemaMode::Reject => (misfits, Vec::new()),
        SchemaMode::Warn | SchemaMode::Off => (Vec::new(), misfits),
    };
    match serde_json::from_value::<T>(value.clone()) {
        // What the rules themselves say is worth telling even if the schema does not fit.
        Ok(object) => match read(&object, settings) {
            Ok(mut policy) if problems.is_empty() => {
                policy.warnings.extend(warnings);
                return Ok(policy);
            }
            Ok(_) => {}
            Err(others) => {
                // Who reads the field can say more of it than the schema.
                problems.retain(|one| others.iter().all(|other| other.path != one.path));
                problems.extend(others);
            }
        },
        Err(error) if problems.is_empty() => problems.push(Problem::at("", error.to_string())),
        Err(_) => {}
    }
    Err(problems)
}

/// The API server takes a null in one of its own kinds for an absent field.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let there = fields.iter().filter(|(_, field)| !field.is_null());
            Value::Object(there.map(|(name, field)| (name.clone(), without_nulls(field))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn not_a_policy(value: &Value) -> Problem {
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or("nothing").to_owned();
    let message = format!(
        "kind {} of {} is not a policy; CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy of cilium.io/v2, \
         NetworkPolicy of networking.k8s.io/v1 and ClusterNetworkPolicy of policy.networking.k8s.io/v1alpha2 are",
        field("kind"),
        field("apiVersion")
    );
    Problem::at("", message)
}

fn namespace_or_default(namespace: Option<&str>) -> &str {
    namespace.filter(|name| !name.is_empty()).unwrap_or("default")
}

type Metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

fn assemble(
    kind: PolicyKind,
    namespace: &str,
    metadata: &Metadata,
    settings: &Settings,
    read: impl FnOnce(&mut Reader<'_>, &Owner<'_>) -> Vec<Rule>,
) -> Result<PolicyObject, Vec<Problem>> {
    let mut reader = Reader { settings, problems: Vec::new(), warnings: Vec::new() };
    let name = metadata.name.clone().unwrap_or_default();
    if name.is_empty() {
        reader.refuse("metadata.name", format!("{kind} must have name"));
    } else if settings.schema == SchemaMode::Reject {
        reader.check_names(&name, namespace);
    }
    let reference = PolicyRef { kind, namespace: namespace.to_owned(), name };
    let uid = metadata.uid.clone().unwrap_or_default();
    let rules = read(&mut reader, &Owner { reference: &reference, uid: &uid });
    if !reader.problems.is_empty() {
        return Err(reader.problems);
    }
    let resource_version = metadata.resource_version.clone().unwrap_or_default();
    let source = Source::default();
    Ok(PolicyObject { reference, uid, resource_version, source, rules, warnings: reader.warnings })
}
