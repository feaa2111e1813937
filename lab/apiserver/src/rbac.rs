//! May this user do this?

use serde_json::Value;

use crate::auth::User;
use crate::meta;
use crate::store::{Key, Store};

/// What someone wants to do.
#[derive(Clone, Debug, Default)]
pub struct Action<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    /// Resource, with `/subresource` if there is one; empty for a path.
    pub resource: &'a str,
    pub name: &'a str,
    pub namespace: &'a str,
    /// A path that is not one of resources.
    pub path: &'a str,
}

/// Groups that may do everything. Nodes are among them: lab's kubelets are trusted with the whole cluster.
const ALL_POWERFUL: &[&str] = &["system:masters", "system:nodes"];

/// Whether roles that are bound to the user allow the action.
pub fn allows(store: &Store, user: &User, action: &Action<'_>) -> bool {
    if ALL_POWERFUL.iter().any(|group| user.is_in(group)) || is_free(action) {
        return true;
    }
    rules(store, user, action.namespace).iter().any(|rule| permits(rule, action))
}

/// What every known user may do: learn what there is, and who they are.
fn is_free(action: &Action<'_>) -> bool {
    let discovery = ["/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz"];
    let path = !action.path.is_empty() && discovery.iter().any(|start| action.path.starts_with(start));
    let review =
        matches!(action.resource, "selfsubjectaccessreviews" | "selfsubjectreviews" | "selfsubjectrulesreviews");
    path || (review && action.verb == "create")
}

/// The rules of all roles that are bound to the user, cluster-wide or in the namespace.
pub fn rules(store: &Store, user: &User, namespace: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    let (bindings, _) = store.list("clusterrolebindings.rbac.authorization.k8s.io", None);
    for binding in bindings.iter().filter(|binding| binds(&binding.value, user, "")) {
        rules.extend(role(store, &binding.value["roleRef"], ""));
    }
    if !namespace.is_empty() {
        let (bindings, _) = store.list("rolebindings.rbac.authorization.k8s.io", Some(namespace));
        for binding in bindings.iter().filter(|binding| binds(&binding.value, user, namespace)) {
            rules.extend(role(store, &binding.value["roleRef"], namespace));
        }
    }
    rules
}

fn role(store: &Store, reference: &Value, namespace: &str) -> Vec<Value> {
    let name = reference["name"].as_str().unwrap_or_default();
    let key = if reference["kind"] == "ClusterRole" {
        Key::new("clusterroles.rbac.authorization.k8s.io", "", name)
    } else {
        Key::new("roles.rbac.authorization.k8s.io", namespace, name)
    };
    store.get(&key).map(|role| meta::list(&role.value, "/rules").to_vec()).unwrap_or_default()
}

fn binds(binding: &Value, user: &User, namespace: &str) -> bool {
    meta::list(binding, "/subjects").iter().any(|subject| {
        let name = subject["name"].as_str().unwrap_or_default();
        match subject["kind"].as_str() {
            Some("User") => user.name == name,
            Some("Group") => user.is_in(name),
            Some("ServiceAccount") => {
                let inside = subject["namespace"].as_str().unwrap_or(namespace);
                user.name == format!("system:serviceaccount:{inside}:{name}")
            }
            _ => false,
        }
    })
}

fn permits(rule: &Value, action: &Action<'_>) -> bool {
    let any = |field: &str, wanted: &str| {
        meta::list(rule, field).iter().filter_map(Value::as_str).any(|one| one == "*" || one == wanted)
    };
    if !any("/verbs", action.verb) {
        return false;
    }
    if action.resource.is_empty() {
        let urls = meta::list(rule, "/nonResourceURLs").iter().filter_map(Value::as_str);
        return urls.into_iter().any(|url| match url.strip_suffix('*') {
            Some(start) => action.path.starts_with(start),
            None => action.path == url,
        });
    }
    let names = meta::list(rule, "/resourceNames");
    let named = names.is_empty() || names.iter().any(|name| name == action.name);
    let all_of_sub = action.resource.split_once('/').is_some_and(|(_, sub)| any("/resources", &format!("*/{sub}")));
    any("/apiGroups", action.group) && (any("/resources", action.resource) || all_of_sub) && named
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_permits_what_it_names() {
        let rule = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]});
        let action = Action { verb: "get", resource: "pods", name: "a", ..Action::default() };
        assert!(permits(&rule, &action));
        assert!(!permits(&rule, &Action { name: "b", ..action.clone() }));
        assert!(!permits(&rule, &Action { resource: "pods/log", ..action.clone() }));
        assert!(!permits(&rule, &Action { group: "apps", ..action.clone() }));
        assert!(!permits(&rule, &Action { verb: "delete", ..action }));
    }
}
