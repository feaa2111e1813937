//! Do the servers of the outside say what the configuration wants, each at its addresses?
#![allow(clippy::unwrap_used)]

use super::*;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;

fn server(address: &str, port: u16, kind: Kind, body: &str) -> Server {
    let address = match address {
        "any" => Addresses::Any,
        one => Addresses::These(vec![one.parse().unwrap()]),
    };
    Server { address, port, kind, body: Some(body.into()).filter(|b: &String| !b.is_empty()) }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn said_by(address: &str, port: u16, say: &str) -> String {
    let mut stream = TcpStream::connect((address, port)).await.unwrap();
    stream.write_all(say.as_bytes()).await.unwrap();
    let mut buffer = [0; 64];
    let n = stream.read(&mut buffer).await.unwrap();
    String::from_utf8(buffer[..n].to_vec()).unwrap()
}

async fn page_at(address: &str, port: u16, host: &str) -> String {
    let stream = TcpStream::connect((address, port)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = HttpRequest::get("/p").header(header::HOST, host).body(Empty::<Bytes>::new()).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_server_that_names_the_address_comes_first() {
    let (web, ssh) = (free_port(), free_port());
    let servers = [
        server("any", web, Kind::Http, ""),
        server("127.0.0.9", web, Kind::Http, "named"),
        server("127.0.0.9", ssh, Kind::Banner, "SSH-2.0-x\r\n"),
    ];
    super::servers(&servers).unwrap().into_iter().for_each(|task| drop(tokio::spawn(task)));
    assert_eq!(page_at("127.0.0.9", web, "x").await, "named");
    assert_eq!(page_at("127.0.0.1", web, "IFCONFIG.me:80").await, "127.0.0.1\n");
    let other = page_at("127.0.0.1", web, "cnn.com").await;
    assert_eq!(other, "GET /p at cnn.com (127.0.0.1), asked by 127.0.0.1\n");
    assert_eq!(said_by("127.0.0.9", ssh, "").await, "SSH-2.0-x\r\n");
    assert!(TcpStream::connect(("127.0.0.1", ssh)).await.is_err(), "the banner is for one address");
}

#[tokio::test]
async fn echoes_send_back() {
    let (tcp, udp) = (free_port(), free_port());
    let servers = [server("127.0.0.1", tcp, Kind::TcpEcho, ""), server("127.0.0.1", udp, Kind::UdpEcho, "")];
    super::servers(&servers).unwrap().into_iter().for_each(|task| drop(tokio::spawn(task)));
    assert_eq!(said_by("127.0.0.1", tcp, "to and fro").await, "to and fro");
    let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(b"datagram", ("127.0.0.1", udp)).await.unwrap();
    let mut buffer = [0; 64];
    let n = timeout(Duration::from_secs(5), client.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(&buffer[..n], b"datagram");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = super::servers(&[server("127.0.0.1", port, Kind::TcpEcho, "")]).err().unwrap().to_string();
    assert!(error.contains("127.0.0.1") && error.contains(&port.to_string()), "{error}");
}
