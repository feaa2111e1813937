//! A cluster without machines, to try clients on: `pretend FOLDER ADDRESS NODES`.

#[path = "../tests/pretend/mod.rs"]
mod pretend;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = std::path::PathBuf::from(arguments.next().ok_or("a folder is expected")?);
    let address = arguments.next().ok_or("an address is expected")?;
    let nodes = arguments.next().unwrap_or_else(|| "3".to_owned()).parse()?;
    std::fs::create_dir_all(&folder)?;
    let cluster = pretend::Cluster::start(&folder, &address, nodes).await;
    cluster.client.apiserver_version().await?;
    println!("export KUBECONFIG={}", cluster.kubeconfig.display());
    tokio::signal::ctrl_c().await?;
    cluster.stop().await;
    Ok(())
}
