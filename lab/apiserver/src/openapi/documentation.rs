//! What do kinds and fields mean? The sentences that `kubectl explain` shows.

/// A type by its name, for example `api.core.v1.Pod`.
pub fn of_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "Pod" => "One or more processes that share a network namespace and an address, on one node.",
        "PodSpec" => "What runs in a pod, and where it may run.",
        "Container" => "One process of a pod: its image or command, ports, environment and probes.",
        "Namespace" => "A scope for names, policies and accounts.",
        "Node" => "A machine of the cluster, here a network namespace with a kubelet.",
        "Service" => "A stable address and name for a changing set of pods.",
        "Endpoints" => "The addresses behind a service, in the older form.",
        "EndpointSlice" => "A part of the addresses behind a service, of one IP family.",
        "ServiceAccount" => "An identity for processes in pods.",
        "ConfigMap" => "Configuration as keys and values.",
        "Secret" => "Confidential keys and values; the values are base64.",
        "Event" => "Something that happened to an object; kept for an hour.",
        "Deployment" => {
            "Keeps a number of equal pods running and replaces them step by step when the template changes."
        }
        "ReplicaSet" => "Keeps a number of equal pods running.",
        "DaemonSet" => "Keeps one pod running on each node that fits.",
        "ControllerRevision" => "An earlier state of a workload.",
        "NetworkPolicy" => "Which traffic the selected pods may receive and send.",
        "Ingress" => "Rules by which HTTP requests from outside reach services.",
        "IngressClass" => "Which controller serves an Ingress.",
        "Lease" => "A claim that is renewed, for example a node's sign of life.",
        "PodDisruptionBudget" => "How many pods may be evicted at a time.",
        "PriorityClass" => "A named priority of pods.",
        "Role" => "What may be done in a namespace.",
        "ClusterRole" => "What may be done in the whole cluster.",
        "RoleBinding" => "Gives a role to users, groups or service accounts in a namespace.",
        "ClusterRoleBinding" => "Gives a role to users, groups or service accounts everywhere.",
        "CustomResourceDefinition" => "A kind that users add: its names, scope, versions and schema.",
        "ObjectMeta" => "Name, labels and bookkeeping that every object has.",
        "LabelSelector" => "Which labels an object must have. An empty one matches everything.",
        "Probe" => "A check that is repeated while a container runs.",
        _ => "",
    }
}

/// A field of a type.
pub fn of_field(kind: &str, field: &str) -> &'static str {
    match field {
        "apiVersion" => "The version of the schema that this object follows.",
        "kind" => "What this object is.",
        "metadata" => "Name, namespace, labels and bookkeeping.",
        "spec" => "The state that is wanted.",
        "status" => "The state that was seen last; written by the cluster.",
        "labels" => "Keys and values to select objects by.",
        "annotations" => "Keys and values that are kept, and not selected by.",
        "name" if kind.ends_with("ObjectMeta") => "The name, unique among its kind in its namespace.",
        "namespace" if kind.ends_with("ObjectMeta") => "The namespace that the object is in.",
        "ownerReferences" => "Objects that this one depends on; it goes when all of them are gone.",
        "finalizers" => "Who still has something to do before the object may go.",
        "replicas" => "How many pods are wanted.",
        "selector" => "Which pods are meant, by their labels.",
        "template" => "The pod that is made.",
        "containers" => "The processes of the pod. There is at least one.",
        "initContainers" => "Processes that run one after the other, to their end, before the others start.",
        "nodeSelector" => "Labels that the node must have.",
        "tolerations" => "Taints of nodes that the pod bears.",
        "ports" => "Ports, each with a number, a protocol and perhaps a name.",
        "image" => "What runs: a name in the catalogue.",
        "command" => "What runs instead of the image's own command.",
        "args" => "Arguments of the command.",
        "env" => "Variables of the environment.",
        "clusterIP" => "The service's address in the cluster; None for a service without one.",
        "podSelector" => "Which pods the policy is for; an empty one selects all in the namespace.",
        "ingress" => "What may come in.",
        "egress" => "What may go out.",
        "policyTypes" => "The directions that the policy restricts.",
        "rules" => "What is allowed.",
        "data" => "Keys and values.",
        _ => "",
    }
}
