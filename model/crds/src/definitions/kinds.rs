//! Which kinds are there, by which names, in which versions, and what does `kubectl get` print of them?

use super::{CustomResource, PrinterColumn, Version};

const V2: Version = Version { name: "v2", storage: true, deprecated: false };
const OLD_V2ALPHA1: Version = Version { name: "v2alpha1", storage: false, deprecated: true };
const V2ALPHA1: Version = Version { name: "v2alpha1", storage: true, deprecated: false };
const NOW: &[Version] = &[V2];
const BOTH: &[Version] = &[V2, OLD_V2ALPHA1];
const ALPHA: &[Version] = &[V2ALPHA1];
const PLAIN: &[&str] = &["cilium"];
const POLICY: &[&str] = &["cilium", "ciliumpolicy"];
const BGP: &[&str] = &["cilium", "ciliumbgp"];

pub(super) const fn column(name: &'static str, column_type: &'static str, json_path: &'static str) -> PrinterColumn {
    PrinterColumn { name, column_type, json_path, priority: 0 }
}

const fn wide(name: &'static str, column_type: &'static str, json_path: &'static str) -> PrinterColumn {
    PrinterColumn { name, column_type, json_path, priority: 1 }
}

pub(super) const AGE: PrinterColumn = column("Age", "date", ".metadata.creationTimestamp");
const VALID: PrinterColumn = column("Valid", "string", ".status.conditions[?(@.type=='Valid')].status");
const ONLY_AGE: &[PrinterColumn] = &[AGE];

const PLAIN_RESOURCE: CustomResource = CustomResource {
    kind: "",
    plural: "",
    short_names: &[],
    categories: PLAIN,
    namespaced: false,
    versions: NOW,
    status_subresource: false,
    columns: ONLY_AGE,
    description: "",
};

/// Every custom resource of the group.
pub fn custom_resources() -> Vec<CustomResource> {
    [policies(), state(), networking(), bgp()].concat()
}

fn policies() -> Vec<CustomResource> {
    vec![
        CustomResource {
            kind: "CiliumNetworkPolicy",
            plural: "ciliumnetworkpolicies",
            short_names: &["cnp", "ciliumnp"],
            categories: POLICY,
            namespaced: true,
            status_subresource: true,
            columns: &[AGE, VALID],
            description: "Rules for pods of one namespace: who may talk to them, whom they may talk to.",
            ..PLAIN_RESOURCE
        },
        CustomResource {
            kind: "CiliumClusterwideNetworkPolicy",
            plural: "ciliumclusterwidenetworkpolicies",
            short_names: &["ccnp"],
            categories: POLICY,
            status_subresource: true,
            columns: &[VALID],
            description: "Rules for pods of all namespaces, or for nodes: who may talk to them, whom they may talk to.",
            ..PLAIN_RESOURCE
        },
        CustomResource {
            kind: "CiliumCIDRGroup",
            plural: "ciliumcidrgroups",
            short_names: &["ccg"],
            versions: BOTH,
            columns: &[],
            description: "Prefixes outside of the cluster that policies can name together.",
            ..PLAIN_RESOURCE
        },
        CustomResource {
            kind: "CiliumEgressGatewayPolicy",
            plural: "ciliumegressgatewaypolicies",
            short_names: &["cegp"],
            categories: POLICY,
            description: "Which pods leave the cluster through which node and address.",
            ..PLAIN_RESOURCE
        },
        CustomResource {
            kind: "CiliumLocalRedirectPolicy",
            plural: "ciliumlocalredirectpolicies",
            short_names: &["clrp"],
            categories: POLICY,
            namespaced: true,
            description: "Which traffic to an address or service goes to a pod on the same node instead.",
            ..PLAIN_RESOURCE
        },
    ]
}

fn state() -> Vec<CustomResource> {
    vec![
        CustomResource {
            kind: "CiliumEndpoint",
            plural: "ciliumendpoints",
            short_names: &["cep", "ciliumep"],
            namespaced: true,
            columns: const {
                &[
                    column("Security Identity", "integer", ".status.identity.id"),
                    wide("Ingress Enforcement", "string", ".status.policy.ingress.state"),
                    wide("Egress Enforcement", "string", ".status.policy.egress.state"),
                    column("Endpoint State", "string", ".status.state"),
                    column("IPv4", "string", ".status.networking.addressing[0].ipv4"),
                    column("IPv6", "string", ".status.networking.addressing[0].ipv6"),
                ]
            },
            description: "What a node's agent knows of a pod that it manages.",
            ..PLAIN_RESOURCE
        },
        CustomResource {
            kind: "CiliumEndpointSlice",
            plural: "ciliumendpointslices",
            short_names: &["ces"],
            versions: ALPHA,
            columns: &[],
            description: "What agents know of many pods, in one object.",
            ..PLAIN_RESOURCE
        },
        CustomResource {
            kind: "CiliumIdentity",
            plural: "ciliumidentities",
            short_names: &["ciliumid"],
            status_subresource: true,
            columns: const { &[column("Namespace", "string", r".metadata.labels.io\.kubernetes\.pod\.namespace"), AGE] },
            description: "A security identity: the name is a number, which stands for the set of labels.",
            ..PLAIN_RESOURCE
        },
        CustomResource {
            kind: "CiliumNode",
            plural: "ciliumnodes",
            short_names: &["cn", "ciliumn"],
            status_subresource: true,
            columns: const {
                &[
                    column("CiliumInternalIP", "string", r#".spec.addresses[?(@.type=="CiliumInternalIP")].ip"#),
                    column("InternalIP", "string", r#".spec.addresses[?(@.type=="InternalIP")].ip"#),
                    AGE,
                ]
            },
            description: "What agents tell each other of their nodes.",
            ..PLAIN_RESOURCE
        },
        CustomResource {
            kind: "CiliumNodeConfig",
            plural: "ciliumnodeconfigs",
            namespaced: true,
            versions: BOTH,
            columns: &[],
            description: "Settings of the agents on some nodes.",
            ..PLAIN_RESOURCE
        },
        CustomResource {
            kind: "CiliumDatapathPlugin",
            plural: "ciliumdatapathplugins",
            short_names: &["cddp"],
            versions: ALPHA,
            columns: &[],
            description: "A plugin of the datapath.",
            ..PLAIN_RESOURCE
        },
    ]
}

fn networking() -> Vec<CustomResource> {
    vec![
        CustomResource {
            kind: "CiliumEnvoyConfig",
            plural: "ciliumenvoyconfigs",
            short_names: &["cec"],
            namespaced: true,
            description: "Listeners and routes of the proxy for services of one namespace.",
            ..PLAIN_RESOURCE
        },
        CustomResource {
            kind: "CiliumClusterwideEnvoyConfig",
            plural: "ciliumclusterwideenvoyconfigs",
            short_names: &["ccec"],
            description: "Listeners and routes of the proxy for services of all namespaces.",
            ..PLAIN_RESOURCE
        },
        CustomResource {
            kind: "CiliumGatewayClassConfig",
            plural: "ciliumgatewayclassconfigs",
            short_names: &["cgcc"],
            namespaced: true,
            versions: ALPHA,
            status_subresource: true,
            columns: const {
                &[
                    column("Accepted", "string", r#".status.conditions[?(@.type=="Accepted")].status"#),
                    AGE,
                    wide("Description", "string", ".spec.description"),
                ]
            },
            description: "Settings of gateways of a class.",
            ..PLAIN_RESOURCE
        },
        CustomResource {
            kind: "CiliumL2AnnouncementPolicy",
            plural: "ciliuml2announcementpolicies",
            short_names: &["l2announcement"],
            versions: ALPHA,
            status_subresource: true,
            description: "Which nodes answer for which services' addresses in the local network.",
            ..PLAIN_RESOURCE
        },
        CustomResource {
            kind: "CiliumLoadBalancerIPPool",
            plural: "ciliumloadbalancerippools",
            short_names: &["ippools", "ippool", "lbippool", "lbippools"],
            versions: BOTH,
            status_subresource: true,
            columns: const {
                &[
                    column("Disabled", "boolean", ".spec.disabled"),
                    column(
                        "Conflicting",
                        "string",
                        r#".status.conditions[?(@.type=="cilium.io/PoolConflict")].status"#,
                    ),
                    column(
                        "IPs Available",
                        "string",
                        r#".status.conditions[?(@.type=="cilium.io/IPsAvailable")].message"#,
                    ),
                    AGE,
                ]
            },
            description: "Addresses for services of type LoadBalancer.",
            ..PLAIN_RESOURCE
        },
        CustomResource {
            kind: "CiliumPodIPPool",
            plural: "ciliumpodippools",
            short_names: &["cpip"],
            versions: ALPHA,
            columns: &[],
            description: "Addresses for pods.",
            ..PLAIN_RESOURCE
        },
    ]
}

fn bgp() -> Vec<CustomResource> {
    let bgp = CustomResource { categories: BGP, versions: BOTH, ..PLAIN_RESOURCE };
    vec![
        CustomResource {
            kind: "CiliumBGPAdvertisement",
            plural: "ciliumbgpadvertisements",
            short_names: &["cbgpadvert"],
            description: "Which prefixes nodes tell their BGP peers.",
            ..bgp.clone()
        },
        CustomResource {
            kind: "CiliumBGPClusterConfig",
            plural: "ciliumbgpclusterconfigs",
            short_names: &["cbgpcluster"],
            status_subresource: true,
            description: "BGP instances and peers of nodes.",
            ..bgp.clone()
        },
        CustomResource {
            kind: "CiliumBGPNodeConfig",
            plural: "ciliumbgpnodeconfigs",
            short_names: &["cbgpnode"],
            status_subresource: true,
            description: "BGP instances and peers of one node.",
            ..bgp.clone()
        },
        CustomResource {
            kind: "CiliumBGPNodeConfigOverride",
            plural: "ciliumbgpnodeconfigoverrides",
            short_names: &["cbgpnodeoverride"],
            description: "What is different for BGP on one node.",
            ..bgp.clone()
        },
        CustomResource {
            kind: "CiliumBGPPeerConfig",
            plural: "ciliumbgppeerconfigs",
            short_names: &["cbgppeer"],
            status_subresource: true,
            description: "Settings of BGP peers.",
            ..bgp
        },
    ]
}
