//! Do calls of gRPC pass with streams, trailers, deadlines and cancellations, and do clients understand what the proxy says?

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::{Stream, StreamExt, stream};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::harness::*;

/// Messages are bytes as they are.
#[derive(Default, Clone, Copy)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Plain;
    type Decoder = Plain;

    fn encoder(&mut self) -> Plain {
        Plain
    }

    fn decoder(&mut self) -> Plain {
        Plain
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// What a server noticed.
#[derive(Default)]
struct Noticed {
    paths: Mutex<Vec<String>>,
    /// Calls that were given up by their clients.
    given_up: AtomicU32,
}

/// Counts itself when it goes.
struct Held(Arc<Noticed>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.given_up.fetch_add(1, Ordering::Relaxed);
    }
}

/// What each method answers.
async fn call(
    noticed: Arc<Noticed>,
    method: String,
    mut request: Request<Streaming<Bytes>>,
) -> Result<Messages, Status> {
    match method.as_str() {
        "/test/Echo" => Ok(request.into_inner().boxed()),
        "/test/Repeat" => {
            let message = request.get_mut().message().await?.unwrap_or_default();
            Ok(stream::iter((0..100).map(move |_| Ok(message.clone()))).boxed())
        }
        "/test/Count" => {
            let all = request.into_inner().collect::<Vec<_>>().await;
            Ok(stream::iter([Ok(Bytes::from(all.len().to_string()))]).boxed())
        }
        "/test/Late" => {
            let first = stream::iter([Ok(Bytes::from("first"))]);
            Ok(first.chain(stream::iter([Err(Status::data_loss("then nothing"))])).boxed())
        }
        "/test/Never" => {
            let held = Held(noticed);
            std::future::pending::<()>().await;
            drop(held);
            Err(Status::unknown("never"))
        }
        _ => Err(Status::resource_exhausted("too much")),
    }
}

fn origin() -> (SocketAddr, Arc<Noticed>) {
    let noticed = Arc::new(Noticed::default());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let told = Arc::clone(&noticed);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let noticed = Arc::clone(&told);
                let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
                    let (noticed, method) = (Arc::clone(&noticed), request.uri().path().to_owned());
                    noticed.paths.lock().unwrap().push(method.clone());
                    let service = tower::service_fn(move |request| {
                        let answer = call(Arc::clone(&noticed), method.clone(), request);
                        async move { answer.await.map(Response::new) }
                    });
                    async move { Ok::<_, Infallible>(tonic::server::Grpc::new(Plain).streaming(service, request).await) }
                });
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    (address, noticed)
}

async fn client(proxy: &Proxy) -> tonic::client::Grpc<Channel> {
    let channel = Endpoint::from_shared(format!("http://{}", proxy.address)).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    client
}

async fn unary(client: &mut tonic::client::Grpc<Channel>, method: &'static str) -> Result<Bytes, Status> {
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let request = Request::new(Bytes::from("message"));
    client.unary(request, http::uri::PathAndQuery::from_static(method), Plain).await.map(Response::into_inner)
}

#[test]
fn calls_of_all_four_shapes_pass() {
    let (address, noticed) = origin();
    let proxy = Proxy::http(address, r#"[{"method":"POST","path":"/test/(Echo|Repeat|Count|Late|Full)"}]"#);
    proxy.block_on(async {
        let mut client = client(&proxy).await;
        let path = http::uri::PathAndQuery::from_static;
        assert_eq!(unary(&mut client, "/test/Echo").await.unwrap(), "message");

        client.ready().await.unwrap();
        let repeated = client.server_streaming(Request::new(Bytes::from("x")), path("/test/Repeat"), Plain).await;
        assert_eq!(
            repeated.unwrap().into_inner().filter(|message| futures::future::ready(message.is_ok())).count().await,
            100
        );

        client.ready().await.unwrap();
        let many = stream::iter((0..200).map(|_| Bytes::from(vec![7; 3_000])));
        let counted = client.client_streaming(Request::new(many), path("/test/Count"), Plain).await.unwrap();
        assert_eq!(counted.into_inner(), "200");

        client.ready().await.unwrap();
        let (say, said) = tokio::sync::mpsc::channel(1);
        let said = stream::unfold(said, |mut said| async { said.recv().await.map(|message| (message, said)) });
        let mut heard = client.streaming(Request::new(said), path("/test/Echo"), Plain).await.unwrap().into_inner();
        for round in 0..50u8 {
            say.send(Bytes::from(vec![round; 10_000])).await.unwrap();
            assert_eq!(heard.message().await.unwrap().unwrap(), vec![round; 10_000]);
        }
        drop(say);
        assert_eq!(heard.message().await.unwrap(), None);

        // A status without messages, and one in trailers after a message.
        let full = unary(&mut client, "/test/Full").await.unwrap_err();
        assert_eq!((full.code(), full.message()), (Code::ResourceExhausted, "too much"));
        client.ready().await.unwrap();
        let late = client.server_streaming(Request::new(Bytes::new()), path("/test/Late"), Plain).await.unwrap();
        let mut late = late.into_inner();
        assert_eq!(late.message().await.unwrap().unwrap(), "first");
        let lost = late.message().await.unwrap_err();
        assert_eq!((lost.code(), lost.message()), (Code::DataLoss, "then nothing"));
    });
    assert_eq!(noticed.paths.lock().unwrap().len(), 6);
}

#[test]
fn deadlines_and_cancellations_reach_the_server() {
    let (address, noticed) = origin();
    let proxy = Proxy::http(address, "[{}]");
    proxy.block_on(async {
        let mut client = client(&proxy).await;
        let mut request = Request::new(Bytes::new());
        request.set_timeout(Duration::from_millis(100));
        let never = http::uri::PathAndQuery::from_static("/test/Never");
        let late = client.unary(request, never.clone(), Plain).await.unwrap_err();
        // The client's own clock, or the server's word; either way the call is over.
        assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
        client.ready().await.unwrap();
        let call = client.unary(Request::new(Bytes::new()), never, Plain);
        assert!(tokio::time::timeout(Duration::from_millis(100), call).await.is_err());
        eventually("the server knows of both", || noticed.given_up.load(Ordering::Relaxed) == 2);
        // Others go on.
        assert_eq!(unary(&mut client, "/test/Echo").await.unwrap(), "message");
    });
}

#[test]
fn denials_and_failures_are_statuses_that_clients_know() {
    let (address, noticed) = origin();
    let proxy = Proxy::http(address, r#"[{"path":"/test/Echo"}]"#);
    proxy.block_on(async {
        let mut client = client(&proxy).await;
        let denied = unary(&mut client, "/test/Repeat").await.unwrap_err();
        assert_eq!((denied.code(), denied.message()), (Code::PermissionDenied, "Access denied\r\n"));
        assert_eq!(unary(&mut client, "/test/Echo").await.unwrap(), "message");
    });
    assert_eq!(*noticed.paths.lock().unwrap(), ["/test/Echo"]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (server, why) in [
        (closed, "the server cannot be reached\r\n"),
        (crate::harness::server(|mut client| drop(client.read(50))), "the server ended without an answer\r\n"),
    ] {
        let proxy = Proxy::http(server, "[{}]");
        proxy.block_on(async {
            let failed = unary(&mut client(&proxy).await, "/test/Echo").await.unwrap_err();
            assert_eq!((failed.code(), failed.message()), (Code::Unavailable, why));
        });
    }
    // The same on HTTP/1, as gRPC-Web's clients speak it.
    let proxy = Proxy::http(closed, r#"[{"path":"/ok"}]"#);
    for (path, status) in [("/ok", "14"), ("/no", "7")] {
        let answer = proxy.send(format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ));
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains(&format!("grpc-status: {status}\r\n")),
            "{answer}"
        );
    }
}
