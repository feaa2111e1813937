//! Which peers does a rule for a service mean?

use ipnet::IpNet;
use labels::{CLUSTER, POD_NAMESPACE, Selector, source};

use crate::peer::Known;
use crate::settings::Settings;

impl Known {
    /// Adds the peers of one service: the pods that its selector selects, or, of a service without selector, its backends.
    pub fn add_service<'a>(
        &mut self,
        namespace: &str,
        selector: impl IntoIterator<Item = (&'a str, &'a str)>,
        backends: impl IntoIterator<Item = IpNet>,
        settings: &Settings,
    ) {
        let mut labels = selector.into_iter().peekable();
        if labels.peek().is_none() {
            self.prefixes.extend(backends);
            return;
        }
        let pods = labels.fold(Selector::everything(), |pods, (key, value)| pods.and_label(source::K8S, key, value));
        let mut pods = pods.and_label(source::K8S, POD_NAMESPACE, namespace);
        if !settings.any_cluster && !pods.has_key(source::K8S, CLUSTER) {
            pods = pods.and_label(source::K8S, CLUSTER, &settings.cluster_name);
        }
        self.selectors.push(pods);
    }
}
