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
    /// Deadlines of calls that had one.
    wishes: Mutex<Vec<String>>,
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
        "/test/Stalls" => {
            let first = stream::iter([Ok(Bytes::from("first"))]);
            Ok(first.chain(stream::pending()).boxed())
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
                    let wish = request.headers().get("grpc-timeout").map(|wish| wish.to_str().unwrap().to_owned());
                    noticed.wishes.lock().unwrap().extend(wish);
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

/// A call by a client without a clock of its own: when it ended, and with which status.
async fn call_until(proxy: &Proxy, method: &str, wish: Option<&str>) -> (Duration, String) {
    let mut client = crate::http2::connect(proxy.address).await;
    let mut request = crate::http2::request("POST", &format!("http://web{method}"), crate::http2::empty());
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    if let Some(wish) = wish {
        request.headers_mut().insert("grpc-timeout", wish.parse().unwrap());
    }
    let started = std::time::Instant::now();
    let answer = client.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let status = |headers: &http::HeaderMap| headers.get("grpc-status").map(|one| one.to_str().unwrap().to_owned());
    let at_once = status(answer.headers());
    let end = http_body_util::BodyExt::collect(answer.into_body()).await;
    let at_the_end = end.map(|end| end.trailers().and_then(status)).unwrap_or(Some("reset".into()));
    (started.elapsed(), at_once.or(at_the_end).unwrap())
}

#[test]
fn a_call_ends_at_its_client_s_deadline_or_at_the_latest_that_may_be() {
    let (address, noticed) = origin();
    let proxy = Proxy::http(address, "[{}]");
    proxy.settings(|settings| settings.timeouts.request = 50);
    proxy.block_on(async {
        for (most, wish) in [(0, "200m"), (200, "1H"), (60_000, "200m")] {
            proxy.settings(|settings| settings.timeouts.grpc_most = most);
            for method in ["/test/Never", "/test/Stalls"] {
                let (time, status) = call_until(&proxy, method, Some(wish)).await;
                assert_eq!(status, "4", "{method} {most} {wish}");
                assert!((200..2_000).contains(&time.as_millis()), "{method} {most} {wish}: {time:?}");
            }
        }
        eventually("the server knows of all", || noticed.given_up.load(Ordering::Relaxed) == 3);
        // Without a deadline there is none: the call ends because nothing moves.
        proxy.settings(|settings| (settings.timeouts.grpc_most, settings.timeouts.stream_idle) = (100, 400));
        for (method, wanted) in [("/test/Never", "14"), ("/test/Stalls", "reset")] {
            let (time, status) = call_until(&proxy, method, None).await;
            assert!(time >= Duration::from_millis(400) && status == wanted, "{method}: {time:?} {status}");
        }
    });
    let wishes = noticed.wishes.lock().unwrap();
    assert_eq!(*wishes, ["200m", "200m", "200m", "200m", "200m", "200m"], "the server is told");
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
