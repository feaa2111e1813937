//! Which resources are served now: the built-in ones and those that definitions add?

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::kinds;
use crate::meta;
use crate::schema::{Schema, builtin, custom};

/// A column of printed tables that a definition declares.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    pub path: String,
}

/// Where a resource keeps what the `scale` subresource shows.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    pub replicas: String,
    pub status: String,
    pub selector: Option<String>,
}

/// One resource in one version.
#[derive(Clone, Debug)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    pub singular: String,
    pub short: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub status: bool,
    pub scale: Option<ScalePaths>,
    /// Further subresources: name, kind, verbs; they have handlers of their own.
    pub others: Vec<(&'static str, &'static str, &'static str, &'static [&'static str])>,
    pub schema: Arc<Schema>,
    /// Set for custom resources only.
    pub columns: Option<Vec<Column>>,
    pub custom: bool,
    /// The declared OpenAPI schema of a custom resource, for documentation.
    pub declared: Option<Value>,
    /// Name of its collection in the store, equal in all versions (and groups, for events).
    pub collection: String,
    /// The `apiVersion` that the store keeps.
    pub stored_as: String,
}

impl Resource {
    pub fn api_version(&self) -> String {
        meta::api_version(&self.group, &self.version)
    }

    pub fn is_stored(&self) -> bool {
        self.verbs.contains(&"get")
    }
}

/// All resources.
#[derive(Default)]
pub struct Registry {
    resources: Vec<Arc<Resource>>,
    index: HashMap<(String, String, String), Arc<Resource>>,
    by_definition: HashMap<Definition, Vec<Arc<Resource>>>,
}

/// A definition as it was once: its uid and resource version.
type Definition = (String, String);

fn definition(object: &Value) -> Definition {
    let text = |path| meta::text(object, path).to_owned();
    (text("/metadata/uid"), text("/metadata/resourceVersion"))
}

static BUILTIN: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(|| kinds::builtin().into_iter().map(Arc::new).collect());

impl Registry {
    /// The built-in resources and those of the definitions. Reading a definition's schema is costly: of those that are as
    /// they were in the registry before this one, the resources are taken over.
    pub fn after<'a>(before: &Registry, definitions: impl Iterator<Item = &'a Value>) -> Self {
        let mut registry = Self::default();
        BUILTIN.iter().for_each(|resource| registry.add(resource.clone()));
        for object in definitions {
            let key = definition(object);
            let known = before.by_definition.get(&key).cloned();
            let resources = known.unwrap_or_else(|| from_definition(object).into_iter().map(Arc::new).collect());
            resources.iter().for_each(|resource| registry.add(resource.clone()));
            registry.by_definition.insert(key, resources);
        }
        registry
    }

    fn add(&mut self, resource: Arc<Resource>) {
        let key = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
        self.resources.push(resource.clone());
        self.index.insert(key, resource);
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.index.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    pub fn all(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// Each stored collection once, in its stored version.
    pub fn collections(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter().filter(|one| one.is_stored() && one.api_version() == one.stored_as)
    }

    /// Groups in the order in which they are announced, each with its versions.
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for resource in &self.resources {
            match groups.iter_mut().find(|(group, _)| *group == resource.group) {
                Some((_, versions)) if versions.contains(&resource.version) => {}
                Some((_, versions)) => versions.push(resource.version.clone()),
                None => groups.push((resource.group.clone(), vec![resource.version.clone()])),
            }
        }
        for (_, versions) in &mut groups {
            versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        }
        groups
    }
}

/// Stable versions before beta before alpha, higher numbers first.
pub fn priority(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse::<u32>().ok();
    let rest = version.strip_prefix('v').unwrap_or_default();
    if let Some(major) = number(rest) {
        return (3, major, 0);
    }
    for (rank, word) in [(2, "beta"), (1, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word)
            && let (Some(major), Some(minor)) = (number(major), number(minor))
        {
            return (rank, major, minor);
        }
    }
    (0, 0, 0)
}

const CUSTOM_VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// The resources of a CustomResourceDefinition, one for each served version.
fn from_definition(definition: &Value) -> Vec<Resource> {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let many = |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().map(text).collect() };
    let versions = meta::list(definition, "/spec/versions");
    let group = text(&spec["group"]);
    let stored = versions.iter().find(|version| version["storage"] == true).map(|version| text(&version["name"]));
    let stored_as = meta::api_version(&group, &stored.unwrap_or_default());
    let served = versions.iter().filter(|version| version["served"] == true);
    served
        .map(|version| {
            let declared = version.pointer("/schema/openAPIV3Schema");
            let scale = version.pointer("/subresources/scale");
            Resource {
                group: group.clone(),
                version: text(&version["name"]),
                kind: text(&names["kind"]),
                list_kind: text(&names["listKind"]),
                plural: text(&names["plural"]),
                singular: text(&names["singular"]),
                short: many(&names["shortNames"]),
                categories: many(&names["categories"]),
                namespaced: spec["scope"] == "Namespaced",
                verbs: CUSTOM_VERBS,
                status: version.pointer("/subresources/status").is_some(),
                scale: scale.map(|scale| ScalePaths {
                    replicas: text(&scale["specReplicasPath"]),
                    status: text(&scale["statusReplicasPath"]),
                    selector: scale["labelSelectorPath"].as_str().map(str::to_owned),
                }),
                others: Vec::new(),
                schema: Arc::new(custom::root(declared)),
                columns: Some(columns(version)),
                custom: true,
                declared: declared.cloned(),
                collection: meta_collection(&text(&names["plural"]), &group),
                stored_as: stored_as.clone(),
            }
        })
        .collect()
}

/// The store's name of a collection.
pub fn meta_collection(plural: &str, group: &str) -> String {
    crate::status::qualified(plural, group)
}

fn columns(version: &Value) -> Vec<Column> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let declared = meta::list(version, "/additionalPrinterColumns");
    if declared.is_empty() {
        return vec![Column {
            name: "Age".into(),
            kind: "date".into(),
            format: String::new(),
            description: "When the object was created".into(),
            priority: 0,
            path: ".metadata.creationTimestamp".into(),
        }];
    }
    declared
        .iter()
        .map(|column| Column {
            name: text(&column["name"]),
            kind: text(&column["type"]),
            format: text(&column["format"]),
            description: text(&column["description"]),
            priority: column["priority"].as_i64().unwrap_or(0),
            path: text(&column["jsonPath"]),
        })
        .collect()
}

/// The schema of a built-in kind.
pub fn builtin_schema(name: &str) -> Arc<Schema> {
    Arc::new(builtin::reference(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn stable_versions_come_first() {
        let mut versions = ["v1alpha1", "v2", "v1", "v2beta1", "v2beta2"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v2", "v1", "v2beta2", "v2beta1", "v1alpha1"]);
    }

    #[test]
    fn definitions_that_stay_as_they_are_are_read_once() {
        let thing = |version: &str| {
            json!({
                "metadata": {"name": "things.x.y", "uid": "u", "resourceVersion": version},
                "spec": {"group": "x.y", "names": {"plural": "things", "kind": "Thing"}, "scope": "Namespaced",
                    "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]},
            })
        };
        let first = Registry::after(&Registry::default(), [thing("1")].iter());
        let same = Registry::after(&first, [thing("1")].iter());
        let changed = Registry::after(&same, [thing("2")].iter());
        let gone = Registry::after(&changed, std::iter::empty());
        let find = |registry: &Registry| registry.find("x.y", "v1", "things").cloned();
        assert!(Arc::ptr_eq(&find(&first).unwrap(), &find(&same).unwrap()));
        assert!(!Arc::ptr_eq(&find(&same).unwrap(), &find(&changed).unwrap()));
        assert!(find(&gone).is_none());
    }

    #[test]
    fn every_built_in_resource_has_a_schema() {
        for resource in kinds::builtin() {
            assert!(!resource.schema.resolve().properties.is_empty(), "{}", resource.collection);
        }
    }
}
