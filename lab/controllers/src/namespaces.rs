//! What does every namespace have: a default account, and the authority's certificate?

use serde_json::{Value, json};

use crate::action::Action;
use crate::view::{Kind, View};
use crate::{Config, read};

/// The name of the configuration with the authority's certificate.
pub const CERTIFICATE: &str = "kube-root-ca.crt";

pub fn plan(view: &View, config: &Config) -> Vec<Action> {
    let mut actions = Vec::new();
    for namespace in view.all(Kind::Namespace).filter(|one| !read::is_deleting(one)) {
        let name = read::name(namespace);
        if view.get(Kind::ServiceAccount, name, "default").is_none() {
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": name, "name": "default"}});
            actions.push(Action::Create(Kind::ServiceAccount, account));
        }
        let data = json!({"ca.crt": config.authority});
        match view.get(Kind::ConfigMap, name, CERTIFICATE) {
            None => {
                let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": name, "name": CERTIFICATE}, "data": data});
                actions.push(Action::Create(Kind::ConfigMap, map));
            }
            Some(old) if old["data"] != data => {
                let mut changed = Value::clone(old);
                changed["data"] = data;
                actions.push(Action::Replace(Kind::ConfigMap, changed));
            }
            Some(_) => {}
        }
    }
    actions
}
