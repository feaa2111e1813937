//! Which labels do a pod's named ports give to its identity?

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::validate::NAME_MAX;
use crate::{Label, source};

/// Key of the first label; the others have a number behind it.
const KEY: &str = "io.cilium.k8s.named-ports";

/// The labels that say which port each name is, so that pods with one identity agree about them. `ports` are names
/// with the protocol's name and the number.
pub fn named_port_labels(ports: &BTreeMap<String, (&str, u16)>) -> Vec<Label> {
    let mut values: Vec<String> = Vec::new();
    for (name, (protocol, number)) in ports {
        let port = format!("{name}.{protocol}.{number}");
        match values.last_mut() {
            Some(value) if value.len() + 1 + port.len() <= NAME_MAX => {
                let _ = write!(value, "_{port}");
            }
            _ => values.push(port),
        }
    }
    let label = |(at, value): (usize, String)| match at {
        0 => Label::new(source::GENERATED, KEY, value),
        _ => Label::new(source::GENERATED, format!("{KEY}-{at}"), value),
    };
    values.into_iter().enumerate().map(label).collect()
}

/// True for the labels that [`named_port_labels`] gives.
pub fn is_named_ports_label(label: &Label) -> bool {
    let number = label.key.strip_prefix(KEY).map(|rest| rest.strip_prefix('-').unwrap_or(rest));
    let is_number = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_digit());
    label.source == source::GENERATED && number.is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ports: &[(&str, &str, u16)], expected: &[&str]) {
        let ports: BTreeMap<_, _> =
            ports.iter().map(|(name, protocol, number)| ((*name).to_owned(), (*protocol, *number))).collect();
        let labels: Vec<String> = named_port_labels(&ports).iter().map(Label::to_string).collect();
        assert_eq!(labels, expected);
        assert!(named_port_labels(&ports).iter().all(is_named_ports_label));
        assert!(!is_named_ports_label(&Label::k8s(KEY, "x")) && !is_named_ports_label(&Label::new("gen", "other", "")));
    }

    #[test]
    fn ports_are_told_by_name_and_as_many_as_fit_into_a_value() {
        check(&[], &[]);
        check(&[("web", "TCP", 80), ("dns", "UDP", 53)], &["gen:io.cilium.k8s.named-ports=dns.UDP.53_web.TCP.80"]);
        let long = ["port-number-aa", "port-number-bb", "port-number-cc"].map(|name| (name, "SCTP", 65535));
        check(
            &long,
            &[
                "gen:io.cilium.k8s.named-ports=port-number-aa.SCTP.65535_port-number-bb.SCTP.65535",
                "gen:io.cilium.k8s.named-ports-1=port-number-cc.SCTP.65535",
            ],
        );
    }
}
