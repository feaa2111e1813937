//! An API server alone: `serve FOLDER ADDRESS` keeps keys, kubeconfig and store in the folder.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("a folder is expected")?);
    let listener = TcpListener::bind(arguments.next().ok_or("an address is expected")?)?;
    let address = listener.local_addr()?;
    let started = std::time::Instant::now();
    let authority = apiserver::pki::Authority::open_or_create(&folder)?;
    let admin = authority.client("kubernetes-admin", "system:masters")?;
    let credential = apiserver::pki::Credential::Certificate(&admin);
    let kubeconfig = authority.kubeconfig("alone", &format!("https://{address}"), "kubernetes-admin", &credential);
    std::fs::write(folder.join("kubeconfig"), kubeconfig)?;
    let handle = apiserver::serve(apiserver::Config {
        identity: authority.server("kube-apiserver", &["127.0.0.1".to_owned(), "localhost".to_owned()])?,
        listeners: vec![listener],
        authority,
        tokens: Vec::new(),
        store: folder.join("store"),
        service_cidrs: vec!["10.96.0.0/16".parse()?, "fd00:10:96::/112".parse()?],
        node_ports: 30000..=32767,
        advertise: vec![SocketAddr::from(([127, 0, 0, 1], address.port()))],
        version: "v1.34.0".to_owned(),
        kubelets: Arc::new(|_: &str| None),
    })
    .await?;
    println!("export KUBECONFIG={} # ready after {:?}", folder.join("kubeconfig").display(), started.elapsed());
    tokio::signal::ctrl_c().await?;
    handle.shutdown().await;
    Ok(())
}
