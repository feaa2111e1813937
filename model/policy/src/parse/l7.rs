//! What does a rule of cilium.io ask at the application's level?

use std::sync::Arc;

use super::Reader;
use super::ports::port_number;
use crate::origin::Direction;
use crate::rule::{L7, PortSpec, protocol};
use crate::settings::SchemaMode;

impl Reader<'_> {
    /// What a port rule asks besides ports; `None` if nothing.
    pub(super) fn l7(
        &mut self,
        path: &str,
        direction: Direction,
        nodes: bool,
        rule: &crds::PortRule,
    ) -> Option<Arc<L7>> {
        let rules = self.l7_rules(path, rule.rules.as_ref());
        self.check_side(path, direction, nodes, rules.as_ref());
        let names = rule.server_names.clone().unwrap_or_default();
        if names.iter().any(String::is_empty) {
            self.refuse(format!("{path}.serverNames"), "empty server name is not allowed");
        }
        if !names.is_empty() && rules.is_some() && rule.terminating_tls.is_none() {
            self.refuse(
                format!("{path}.serverNames"),
                "ServerNames are not allowed with L7 rules without TLS termination",
            );
        }
        if let Some(listener) = &rule.listener {
            let path = format!("{path}.listener");
            if direction == Direction::Ingress {
                self.refuse(&path, format!("Listener is not allowed on ingress ({})", listener.name));
            }
            if rules.is_some() {
                self.refuse(&path, format!("Listener is not allowed with L7 rules ({})", listener.name));
            }
        }
        let l7 = L7 {
            rules,
            server_names: names,
            listener: rule.listener.clone(),
            terminating_tls: rule.terminating_tls.clone(),
            originating_tls: rule.originating_tls.clone(),
        };
        (l7 != L7::default()).then(|| Arc::new(l7))
    }

    /// The rules, if there are any. Lists that are there and empty ask nothing.
    fn l7_rules(&mut self, path: &str, rules: Option<&crds::L7Rules>) -> Option<crds::L7Rules> {
        let rules = rules?;
        let path = format!("{path}.rules");
        let kinds = [rules.http.is_some(), rules.kafka.is_some(), rules.dns.is_some()];
        let kinds = kinds.into_iter().filter(|given| *given).count();
        let strict = self.settings.schema == SchemaMode::Reject;
        if kinds == 0 && strict {
            self.refuse(&path, "there must be one kind of rules, http, kafka or dns");
        }
        if kinds > 1 && (strict || !rules.is_empty()) {
            self.refuse(&path, "multiple L7 protocol rule types specified in single rule");
        }
        if rules.is_empty() {
            self.warn(&path, "rules without any rule allow everything on the ports");
            return None;
        }
        let given = rules;
        for (at, rule) in given.http.iter().flatten().enumerate() {
            self.http(&format!("{path}.http[{at}]"), rule);
        }
        for (at, rule) in given.kafka.iter().flatten().enumerate() {
            self.kafka(&format!("{path}.kafka[{at}]"), rule);
        }
        for (at, name) in given.dns.iter().flatten().enumerate() {
            self.name(&format!("{path}.dns[{at}]"), name);
        }
        if !self.settings.l7_proxy {
            self.refuse(&path, "L7 policy is not supported since L7 proxy is not enabled");
        }
        Some(without_empty_texts(given))
    }

    /// Path and method are regular expressions of the field's dialect.
    fn http(&mut self, path: &str, rule: &crds::HttpRule) {
        for (name, pattern) in [("path", &rule.path), ("method", &rule.method)] {
            let Some(pattern) = pattern.as_deref().filter(|pattern| !pattern.is_empty()) else { continue };
            if let Err(error) = l7::re2::Pattern::new(pattern) {
                self.refuse(
                    format!("{path}.{name}"),
                    format!("{pattern:?} is not a regular expression: {}", error.why),
                );
            }
        }
        let host = rule.host.as_deref().unwrap_or_default();
        if let Err(error) = l7::re2::Pattern::new(host) {
            let message = format!("{host:?} is not a regular expression, so that no request matches: {}", error.why);
            self.warn(format!("{path}.host"), message);
        }
    }

    fn kafka(&mut self, path: &str, rule: &crds::KafkaRule) {
        match l7::kafka::Rule::new(rule) {
            Ok(rule) => {
                if let Some(api) = rule.topic_without_use() {
                    self.warn(
                        format!("{path}.topic"),
                        format!("{api} requests name no topic: it asks nothing of them"),
                    );
                }
            }
            Err((field, why)) => self.refuse(format!("{path}.{field}"), why),
        }
    }

    fn check_side(&mut self, path: &str, direction: Direction, nodes: bool, rules: Option<&crds::L7Rules>) {
        let Some(rules) = rules else { return };
        let path = format!("{path}.rules");
        match direction {
            Direction::Ingress if nodes => self.refuse(path, "L7 policy is not supported on host ingress yet"),
            Direction::Ingress if rules.dns.as_ref().is_some_and(|list| !list.is_empty()) => {
                self.refuse(
                    path,
                    "L7 protocol DNS is not supported on ingress yet: DNS rules are not allowed on ingress",
                );
            }
            Direction::Egress if nodes && rules.http.as_ref().is_some_and(|list| !list.is_empty()) => {
                self.refuse(path, "L7 protocol HTTP is not supported on host egress yet");
            }
            Direction::Egress if nodes && rules.kafka.as_ref().is_some_and(|list| !list.is_empty()) => {
                self.refuse(path, "L7 protocol Kafka is not supported on host egress yet");
            }
            _ => {}
        }
    }

    /// HTTP and Kafka are spoken over TCP, and rules need a port.
    pub(super) fn check_l7_ports(
        &mut self,
        path: &str,
        rules: &crds::L7Rules,
        written: &[crds::PortProtocol],
        ports: &[PortSpec],
    ) {
        if rules.dns.is_some() && written.is_empty() {
            self.refuse(path, "port 53 must be specified for DNS rules");
        }
        if written.iter().any(|port| !port.port.is_empty() && is_zero(&port.port)) {
            self.refuse(path, "L7 rules can not be used when a port is 0");
        }
        let has_dns = rules.dns.as_ref().is_some_and(|list| !list.is_empty());
        if !has_dns && ports.iter().any(|port| port.protocol != protocol::TCP) {
            let found = written
                .iter()
                .filter_map(|port| port.protocol.as_deref())
                .find(|name| !name.eq_ignore_ascii_case("TCP"));
            let message =
                format!("L7 rules can only apply to TCP (not {}) except for DNS rules", found.unwrap_or("ANY"));
            self.refuse(path, message);
        }
    }
}

fn is_zero(port: &str) -> bool {
    port_number(port) == Some(0)
}

/// An empty text asks as much as an absent one.
fn without_empty_texts(rules: &crds::L7Rules) -> crds::L7Rules {
    let mut rules = rules.clone();
    for rule in rules.http.iter_mut().flatten() {
        for text in [&mut rule.path, &mut rule.method, &mut rule.host] {
            text.take_if(|text| text.is_empty());
        }
        rule.headers.take_if(|list| list.is_empty());
        rule.header_matches.take_if(|list| list.is_empty());
    }
    for rule in rules.kafka.iter_mut().flatten() {
        for text in [&mut rule.role, &mut rule.api_key, &mut rule.api_version, &mut rule.client_id, &mut rule.topic] {
            text.take_if(|text| text.is_empty());
        }
    }
    for rule in rules.dns.iter_mut().flatten() {
        for text in [&mut rule.match_name, &mut rule.match_pattern] {
            text.take_if(|text| text.is_empty());
        }
    }
    rules
}
