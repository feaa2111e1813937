//! Do names follow what an API server is told, and outlive it?

use super::*;
use apiserver::pki::{Authority, Credential};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, from_value, json};

async fn api(folder: &std::path::Path) -> (apiserver::Handle, Client) {
    let authority = Authority::generate().unwrap();
    let identity = authority.server("kube-apiserver", &["127.0.0.1".into()]).unwrap();
    let admin = authority.client("admin", "system:masters").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    let text = authority.kubeconfig("test", &server, "admin", &Credential::Certificate(&admin));
    let config = apiserver::Config {
        listeners: vec![listener],
        authority,
        identity,
        tokens: Vec::new(),
        store: folder.join("store"),
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_ports: 30000..=32767,
        advertise: Vec::new(),
        version: "v1.34.0".into(),
        kubelets: Arc::new(|_: &str| None),
    };
    let handle = apiserver::serve(config).await.unwrap();
    let kubeconfig = Kubeconfig::from_yaml(&text).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    (handle, Client::try_from(config).unwrap())
}

/// Asks until the answer is as expected.
async fn becomes(server: &ClusterDns, name: &str, code: ResponseCode, addresses: &[&str]) {
    let mut last = None;
    for _ in 0..500 {
        let reply = server.reply(&query(name), 0).await;
        let data: Vec<String> = reply.answers.iter().map(|r| r.data.to_string()).collect();
        if reply.code == code && data == addresses {
            return;
        }
        last = Some((reply.code, data));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{name}: {last:?}, not {code:?} {addresses:?}");
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    from_value(value).unwrap()
}

#[tokio::test]
async fn names_follow_the_objects_and_outlive_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, client) = api(folder.path()).await;
    let server = ClusterDns::new(Name::from_ascii("cluster.local").unwrap(), Forwarder::new(Vec::new()));
    assert!(!server.ready());
    tokio::spawn(watch::keep_from(client.clone(), server.cluster.clone()));

    let namespace = json!({"metadata": {"name": "shop"}});
    Api::<Namespace>::all(client.clone()).create(&Default::default(), &object(namespace)).await.unwrap();
    let services = Api::<Service>::namespaced(client.clone(), "shop");
    let web = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let web: Service = services.create(&Default::default(), &object(web)).await.unwrap();
    let address = web.spec.unwrap().cluster_ip.unwrap();
    becomes(&server, "web.shop.svc.cluster.local.", ResponseCode::NoError, &[&address]).await;
    assert!(server.ready());

    let db = json!({"metadata": {"name": "db"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
    services.create(&Default::default(), &object(db)).await.unwrap();
    let slices = Api::<EndpointSlice>::namespaced(client, "shop");
    let slice = json!({"metadata": {"name": "db-1", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.244.1.5"]}], "ports": []});
    slices.create(&Default::default(), &object(slice)).await.unwrap();
    becomes(&server, "db.shop.svc.cluster.local.", ResponseCode::NoError, &["10.244.1.5"]).await;
    slices.delete("db-1", &Default::default()).await.unwrap();
    becomes(&server, "db.shop.svc.cluster.local.", ResponseCode::NXDomain, &[]).await;

    handle.shutdown().await;
    becomes(&server, "web.shop.svc.cluster.local.", ResponseCode::NoError, &[&address]).await;
    assert!(server.ready());
}
