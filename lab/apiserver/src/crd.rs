//! CustomResourceDefinitions: are they right, and what becomes of their objects?

use serde_json::{Value, json};

use crate::meta;
use crate::registry::meta_collection;
use crate::schema::custom;
use crate::status::FieldError;
use crate::store::{Key, Transaction};

/// Where definitions are kept.
pub const COLLECTION: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Fills in names that follow from others.
pub fn defaults(object: &mut Value) {
    let spec = meta::child(object, "spec");
    let kind = spec.get("names").map(|names| meta::text(names, "/kind").to_owned()).unwrap_or_default();
    meta::default(spec, "conversion", json!({"strategy": "None"}));
    if let Some(Value::Object(names)) = spec.get_mut("names") {
        meta::default(names, "singular", kind.to_lowercase());
        meta::default(names, "listKind", format!("{kind}List"));
    }
}

/// What is wrong with a definition.
pub fn check(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (group, plural) = (meta::text(object, "/spec/group"), meta::text(object, "/spec/names/plural"));
    let wanted = format!("{plural}.{group}");
    if meta::name(object) != wanted {
        let rule = format!("must be spec.names.plural+\".\"+spec.group: {wanted:?}");
        errors.push(FieldError::invalid("metadata.name", &json!(meta::name(object)), &rule));
    }
    let scope = &object["spec"]["scope"];
    if scope != "Namespaced" && scope != "Cluster" {
        errors.push(FieldError::unsupported("spec.scope", scope, &["Cluster".to_owned(), "Namespaced".to_owned()]));
    }
    let versions = meta::list(object, "/spec/versions");
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let rule = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(
            "spec.versions",
            &json!(versions.iter().map(|one| &one["name"]).collect::<Vec<_>>()),
            rule,
        ));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        match version.pointer("/schema/openAPIV3Schema") {
            None => errors.push(FieldError::required(format!("{path}.schema.openAPIV3Schema"), "schemas are required")),
            Some(schema) => {
                errors.extend(of_metadata(schema, &path));
                let mut bad = Vec::new();
                custom::bad_patterns(schema, &format!("{path}.schema.openAPIV3Schema"), &mut bad);
                for (place, pattern, why) in bad {
                    let rule = format!("must be a valid regular expression, but isn't: {why}");
                    errors.push(FieldError::invalid(place, &json!(pattern), &rule));
                }
            }
        }
    }
    errors
}

/// Metadata has the same schema in all kinds: a definition says at most which names there may be.
fn of_metadata(schema: &Value, path: &str) -> Option<FieldError> {
    let said = schema.pointer("/properties/metadata")?.as_object()?;
    let names = said.get("properties").and_then(Value::as_object);
    let plain = said.keys().all(|name| ["type", "properties"].contains(&name.as_str()))
        && names.into_iter().flatten().all(|(name, _)| ["name", "generateName"].contains(&name.as_str()));
    let rule = "must not specify anything other than name and generateName, but metadata is implicitly specified";
    let place = format!("{path}.schema.openAPIV3Schema.properties[metadata]");
    (!plain).then(|| FieldError::forbidden(place, rule))
}

/// What a definition asks for that this server does not do: rules in CEL are kept and not evaluated.
pub fn warnings(object: &Value) -> Vec<String> {
    let versions = meta::list(object, "/spec/versions").iter();
    let mut found = Vec::new();
    for version in versions {
        let schema = version.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null);
        custom::rules(schema, "openAPIV3Schema", &mut found);
    }
    let Some(first) = found.first() else { return Vec::new() };
    vec![format!(
        "{first}: x-kubernetes-validations are not evaluated by this server, objects that break them are accepted ({} places)",
        found.len()
    )]
}

/// Accepts a definition's names, or says whose they are.
pub fn accept(tx: &Transaction<'_>, object: &mut Value, old: Option<&Value>, now: jiff::Timestamp) -> Vec<FieldError> {
    let (group, kind) =
        (meta::text(object, "/spec/group").to_owned(), meta::text(object, "/spec/names/kind").to_owned());
    let name = meta::name(object).to_owned();
    let clash = tx.list(COLLECTION, None).into_iter().find(|other| {
        meta::name(&other.value) != name
            && meta::text(&other.value, "/spec/group") == group
            && meta::text(&other.value, "/spec/names/kind") == kind
    });
    let now = meta::seconds(now);
    let since = |condition: &str| {
        let conditions = old.map_or(&[][..], |old| meta::list(old, "/status/conditions"));
        let before = conditions.iter().find(|one| one["type"] == condition && one["status"] == "True");
        before.and_then(|one| one["lastTransitionTime"].as_str()).unwrap_or(&now).to_owned()
    };
    let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since(kind)});
    let conditions = match clash {
        Some(other) => vec![
            condition(
                "NamesAccepted",
                "False",
                "KindConflict",
                &format!("{kind:?} is already in use by {}", meta::name(&other.value)),
            ),
            condition("Established", "False", "NotAccepted", "not all names are accepted"),
        ],
        None => vec![
            condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
            condition("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    };
    let mut stored: Vec<Value> = old.map(|old| meta::list(old, "/status/storedVersions").to_vec()).unwrap_or_default();
    let storage = meta::list(object, "/spec/versions").iter().find(|version| version["storage"] == true);
    if let Some(storage) = storage.map(|version| version["name"].clone()).filter(|name| !stored.contains(name)) {
        stored.push(storage);
    }
    object["status"] =
        json!({"conditions": conditions, "acceptedNames": object["spec"]["names"], "storedVersions": stored});
    Vec::new()
}

/// Whether objects of the definition are served.
pub fn is_served(definition: &Value) -> bool {
    meta::list(definition, "/status/conditions")
        .iter()
        .any(|one| one["type"] == "Established" && one["status"] == "True")
}

/// Removes all objects of a definition that goes.
pub fn remove_objects(tx: &mut Transaction<'_>, definition: &Value) {
    let collection =
        meta_collection(meta::text(definition, "/spec/names/plural"), meta::text(definition, "/spec/group"));
    for object in tx.list(&collection, None) {
        tx.delete(&Key::new(&collection, meta::namespace(&object.value), meta::name(&object.value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::check as held;

    #[test]
    fn our_own_definitions_are_right() {
        let all = crds::custom_resource_definitions().into_iter().chain([crds::cluster_network_policy_definition()]);
        for definition in all {
            let wrong: Vec<String> = check(&definition).into_iter().map(|error| error.message).collect();
            assert_eq!(wrong, [""; 0], "{}", meta::name(&definition));
        }
    }

    #[test]
    fn nothing_is_said_of_metadata() {
        let mut definition = crds::custom_resource_definitions().remove(0);
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["metadata"]["description"] =
            json!("names and labels");
        let wrong = check(&definition);
        assert!(wrong.len() == 1 && wrong[0].field.ends_with("properties[metadata]"), "{wrong:?}");
    }

    /// Each line was given to a Kubernetes API server that had Cilium 1.20.2's definitions, and to one that had ours.
    #[test]
    fn objects_are_taken_and_refused_as_by_kubernetes() {
        let resources = crds::custom_resources();
        for line in include_str!("crd/objects.txt").lines() {
            let (verdict, rest) = line.split_at(8);
            let (kind, text) = rest.split_once(' ').expect("a kind and its fields");
            let resource = resources.iter().find(|one| one.kind == kind).expect("a kind of ours");
            let text = format!("{{apiVersion: cilium.io/v2, kind: {kind}, metadata: {{name: x}}, {text}}}");
            let object: Value = serde_saphyr::from_str(&text).expect("YAML");
            let wrong = held::check(&custom::root(Some(&resource.schema())), &object);
            assert_eq!(wrong.is_empty(), verdict.trim() == "takes", "{line}: {wrong:?}");
        }
    }
}
