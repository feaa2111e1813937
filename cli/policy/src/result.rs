//! What does the answer to a case look like?

use serde::Serialize;
use serde_json::Value;

/// Whether a policy could be read.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyResult {
    /// `CiliumNetworkPolicy default/web`
    #[serde(rename = "ref")]
    pub reference: String,
    /// True if it holds.
    pub ok: bool,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// What an endpoint is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EndpointResult {
    /// `namespace/name`
    pub name: String,
    /// The number of its labels.
    pub identity: u32,
    /// Its labels.
    pub labels: Vec<String>,
    /// What comes in must be allowed.
    #[serde(skip_serializing_if = "is_false")]
    pub ingress_enforced: bool,
    /// What goes out must be allowed.
    #[serde(skip_serializing_if = "is_false")]
    pub egress_enforced: bool,
    /// Why its policies cannot be put together.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// What one end says of a flow.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DirectionResult {
    /// The direction must be allowed.
    #[serde(skip_serializing_if = "is_false")]
    pub enforced: bool,
    /// allow or deny.
    pub verdict: &'static str,
    /// Hubble's name of how the deciding entry matched.
    #[serde(rename = "match")]
    pub match_type: &'static str,
    /// Why it is denied.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'static str,
    /// It goes to the proxy.
    #[serde(skip_serializing_if = "is_false")]
    pub redirect: bool,
    /// The proxy refuses nothing.
    #[serde(skip)]
    pub open: bool,
    /// What the proxy asks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub l7: Vec<L7Result>,
    /// Proof that is asked for.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub auth: &'static str,
    /// A deciding rule says so itself.
    #[serde(skip_serializing_if = "is_false")]
    pub auth_explicit: bool,
    /// The policies that contribute to the deciding entry, or what stands for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// The rules themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<Origin>,
    /// What the rules want to be logged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// A rule.
#[derive(Clone, Debug, Serialize)]
pub struct Origin {
    /// Its policy.
    #[serde(rename = "ref")]
    pub reference: String,
    /// ingress or egress.
    pub direction: &'static str,
    /// It denies.
    #[serde(skip_serializing_if = "is_false")]
    pub deny: bool,
    /// Which spec of the policy it is in.
    #[serde(skip_serializing_if = "is_zero")]
    pub spec: usize,
    /// Which rule of its section it is.
    pub index: usize,
    /// The file that it was read from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// The line that it begins at.
    #[serde(skip_serializing_if = "is_zero")]
    pub line: usize,
}

impl Origin {
    /// `CiliumNetworkPolicy default/web ingress[0]`, as rules are told apart.
    pub fn name(&self) -> String {
        rule_name(&self.reference, self.direction, self.deny, (self.spec, self.index))
    }
}

/// The name of a rule.
pub fn name_of(rule: &policy::RuleOrigin) -> String {
    rule_name(&rule.policy.to_string(), rule.direction.name(), rule.deny, (rule.spec, rule.index))
}

fn rule_name(policy: &str, direction: &str, deny: bool, (spec, index): (usize, usize)) -> String {
    let section = match (deny, policy.starts_with("Cilium")) {
        (true, true) => format!("{direction}Deny"),
        _ => direction.to_owned(),
    };
    let spec = if spec == 0 { String::new() } else { format!(" spec {spec}") };
    format!("{policy}{spec} {section}[{index}]")
}

/// What the proxy asks for one or several rules.
#[derive(Clone, Debug, Serialize)]
pub struct L7Result {
    /// http, dns, tls or crd.
    pub parser: &'static str,
    /// The rules, as policies have them.
    #[serde(skip_serializing_if = "is_empty")]
    pub rules: Value,
    /// Names that may not be asked for all the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied_names: Vec<String>,
    /// Server names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sni: Vec<String>,
    /// A listener of the user's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listener: String,
    /// TLS ends at the proxy.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_term: bool,
    /// TLS begins at the proxy.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_orig: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_none_or(serde_json::Map::is_empty)
}
