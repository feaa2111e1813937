//! How does a server's status look?

use super::clean;
use crate::{proto::observer::ServerStatusResponse, time::print_duration, wkt::UInt32Value};

pub(super) fn compact(status: &ServerStatusResponse) -> String {
    let ratio = match status.max_flows {
        0 => String::new(),
        max => format!(" ({:.2}%)", status.num_flows as f64 / max as f64 * 100.0),
    };
    let mut text = format!("Current/Max Flows: {}/{}{ratio}\n", grouped(status.num_flows), grouped(status.max_flows));
    let seconds = status.uptime_ns as f64 / 1e9;
    let rate = match (rate(status), seconds > 0.0) {
        (None, true) => format!("{:.2}", status.seen_flows as f64 / seconds),
        (rate, _) => rate.unwrap_or_else(not_available),
    };
    text.push_str(&format!("Flows/s: {rate}\n"));
    text.push_str(&nodes(status));
    text
}

fn nodes(status: &ServerStatusResponse) -> String {
    let mut text = String::new();
    if let Some(connected) = &status.num_connected_nodes {
        let all = status.num_unavailable_nodes.map(|missing| format!("/{}", missing.value + connected.value));
        text.push_str(&format!("Connected Nodes: {}{}\n", connected.value, all.unwrap_or_default()));
    }
    let missing = status.num_unavailable_nodes.map_or(0, |missing| missing.value);
    if missing == 0 {
        return text;
    }
    text.push_str(&format!("Unavailable Nodes: {missing}\n"));
    let mut names: Vec<_> = status.unavailable_nodes.iter().map(|name| clean(name).into_owned()).collect();
    names.sort();
    let unnamed = (missing as usize).saturating_sub(names.len());
    if !names.is_empty() && unnamed > 0 {
        names.push(format!("and {unnamed} more..."));
    }
    names.iter().for_each(|name| text.push_str(&format!("  - {name}\n")));
    text
}

pub(super) fn dict(status: &ServerStatusResponse) -> String {
    let values = table_values(status);
    let keys = [
        "NUM FLOWS",
        "MAX FLOWS",
        "SEEN FLOWS",
        "FLOWS PER SECOND",
        "UPTIME",
        "NUM CONNECTED NODES",
        "NUM UNAVAIL. NODES",
        "VERSION",
    ];
    keys.iter().zip(values).map(|(key, value)| format!("{key:>19}: {value}\n")).collect()
}

pub(super) fn table(status: &ServerStatusResponse) -> [Vec<String>; 2] {
    let names = [
        "NUM FLOWS",
        "MAX FLOWS",
        "SEEN FLOWS",
        "FLOWS PER SECOND",
        "UPTIME",
        "NUM CONNECTED NODES",
        "NUM UNAVAILABLE NODES",
        "VERSION",
    ];
    [names.map(str::to_owned).to_vec(), table_values(status).to_vec()]
}

fn table_values(status: &ServerStatusResponse) -> [String; 8] {
    let count = |value: &Option<UInt32Value>| value.map_or_else(not_available, |value| value.value.to_string());
    [
        grouped(status.num_flows),
        grouped(status.max_flows),
        grouped(status.seen_flows),
        rate(status).unwrap_or_else(not_available),
        print_duration(status.uptime_ns),
        count(&status.num_connected_nodes),
        count(&status.num_unavailable_nodes),
        clean(&status.version).into_owned(),
    ]
}

fn not_available() -> String {
    "N/A".to_owned()
}

fn rate(status: &ServerStatusResponse) -> Option<String> {
    (status.flows_rate > 0.0).then(|| format!("{:.2}", status.flows_rate))
}

/// With a comma after every third digit from the right.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
