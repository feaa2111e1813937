//! Do objects with all that Cilium 1.20's own definitions have pass our definitions, and come back as they were?
#![allow(clippy::unwrap_used)]

use crds::schema::{Schema, check, structural};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What an API server with our definition keeps, and what a program that reads the object writes again.
fn survives<T: Schema + Serialize + DeserializeOwned>(object: &Value) {
    assert_eq!(check(object, &structural::<T>()), []);
    let typed: T = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(serde_json::to_value(&typed).unwrap(), *object);
}

#[test]
fn endpoints_of_stock_agents_survive() {
    let tuple = json!({ "dest-port": 80, "identity": 1000, "identity-labels": { "k8s:app": "web" }, "protocol": 6 });
    let direction = json!({ "enforcing": true, "state": "enforcing", "adding": [tuple], "allowed": [tuple],
        "denied": [tuple], "removing": [tuple] });
    let controller = json!({ "name": "sync", "uuid": "1-2",
        "configuration": { "error-retry": true, "error-retry-base": 2_000_000_000_i64, "interval": 60_000_000_000_i64 },
        "status": { "consecutive-failure-count": 1, "failure-count": 2, "success-count": 3, "last-failure-msg": "no",
            "last-failure-timestamp": "2026-01-02T15:04:05Z", "last-success-timestamp": "2026-01-02T15:04:05Z" } });
    survives::<crds::CiliumEndpoint>(&json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumEndpoint",
        "metadata": { "name": "web", "namespace": "default" },
        "status": {
            "id": 5,
            "controllers": [controller],
            "encryption": { "key": 3 },
            "external-identifiers": { "cni-attachment-id": "a", "container-id": "b", "container-name": "c",
                "docker-endpoint-id": "d", "docker-network-id": "e", "k8s-namespace": "default",
                "k8s-pod-name": "web", "pod-name": "default/web" },
            "health": { "bpf": "OK", "connected": true, "overallHealth": "OK", "policy": "OK" },
            "identity": { "id": 1000, "labels": ["k8s:app=web"] },
            "log": [{ "code": "OK", "message": "made", "state": "ready", "timestamp": "2026-01-02T15:04:05Z" }],
            "named-ports": [{ "name": "http", "port": 80, "protocol": "TCP" }],
            "networking": { "addressing": [{ "ipv4": "10.0.0.1", "ipv6": "fd00::1" }], "node": "192.168.0.2" },
            "policy": { "ingress": direction, "egress": direction },
            "service-account": "default",
            "state": "ready",
        },
    }));
}

#[test]
fn nodes_of_stock_agents_survive() {
    let tags = json!({ "team": "a" });
    let given = json!({ "10.0.0.5": { "owner": "default/web", "resource": "eni-1" } });
    survives::<crds::CiliumNode>(&json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNode",
        "metadata": { "name": "n1" },
        "spec": {
            "addresses": [{ "type": "InternalIP", "ip": "192.168.0.2" }],
            "alibaba-cloud": { "availability-zone": "z", "cidr-block": "10.0.0.0/8", "instance-type": "t",
                "security-group-tags": tags, "security-groups": ["g"], "vpc-id": "v", "vswitch-tags": tags,
                "vswitches": ["s"] },
            "azure": { "interface-name": "eth0" },
            "bootid": "b",
            "encryption": { "key": 3 },
            "eni": { "availability-zone": "z", "delete-on-termination": true, "disable-prefix-delegation": false,
                "exclude-interface-tags": tags, "first-interface-index": 1, "instance-type": "t",
                "node-subnet-id": "s", "security-group-tags": tags, "security-groups": ["g"], "subnet-ids": ["s"],
                "subnet-tags": tags, "use-primary-address": true, "vpc-id": "v" },
            "health": { "ipv4": "10.0.0.2", "ipv6": "fd00::2" },
            "ingress": { "ipv4": "10.0.0.3", "ipv6": "fd00::3" },
            "instance-id": "i-1",
            "ipam": {
                "podCIDRs": ["10.0.0.0/24"],
                "pool": given,
                "ipv6-pool": given,
                "pools": {
                    "allocated": [{ "pool": "p", "cidrs": ["10.1.0.0/27"], "allowFirstIP": true, "allowLastIP": false }],
                    "requested": [{ "pool": "p", "needed": { "ipv4-addrs": 8, "ipv6-addrs": 8 } }],
                },
                "max-above-watermark": 1, "max-allocate": 2, "min-allocate": 3, "pre-allocate": 8,
                "static-ip-tags": tags,
            },
        },
        "status": { "anything": { "that": ["is", "told"] } },
    }));
}
