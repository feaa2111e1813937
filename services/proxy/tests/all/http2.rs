//! Does HTTP/2 pass as it came, stream by stream, and do floods end?

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::*;

/// `METHOD authority path` of each request that came.
pub type Seen = Arc<Mutex<Vec<String>>>;

/// A server that sends bodies and trailers back; to HEAD it says a length of 7.
pub fn origin() -> (SocketAddr, Seen) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let log = Arc::clone(&log);
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let uri = request.uri();
                    let authority = uri.authority().map_or("", |authority| authority.as_str());
                    let path = uri.path_and_query().map_or("", |path| path.as_str());
                    log.lock().unwrap().push(format!("{} {authority} {path}", request.method()));
                    let head = request.method() == "HEAD";
                    let mut response = Response::new(request.into_body());
                    if head {
                        response.headers_mut().insert("content-length", 7.into());
                    }
                    async move { Ok::<_, Infallible>(response) }
                });
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    (address, seen)
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

pub async fn connect(address: SocketAddr) -> SendRequest<Body> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (sender, running) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(running);
    sender
}

pub fn request(method: &str, url: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(url).body(body).unwrap()
}

/// A body that comes frame by frame.
pub fn streamed() -> (tokio::sync::mpsc::Sender<Frame<Bytes>>, Body) {
    let (send, frames) = tokio::sync::mpsc::channel(1);
    let frames =
        futures::stream::unfold(frames, |mut frames| async { frames.recv().await.map(|frame| (frame, frames)) });
    (send, StreamBody::new(frames.map(Ok::<_, Infallible>)).boxed_unsync())
}

pub fn empty() -> Body {
    Full::default().boxed_unsync()
}

pub async fn answered(response: Response<Incoming>) -> (u16, Bytes, Option<HeaderMap>) {
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned();
    (code, body.to_bytes(), trailers)
}

#[test]
fn requests_are_judged_stream_by_stream_on_one_connection() {
    let (address, seen) = origin();
    let proxy = Proxy::http(address, r#"[{"method":"GET","path":"/a.*","host":"web"}]"#);
    proxy.block_on(async {
        let mut client = connect(proxy.address).await;
        for (method, url, wanted) in [
            ("GET", "http://web/a?x", 200),
            ("GET", "http://web/b", 403),
            ("POST", "http://web/a", 403),
            ("GET", "http://WEB/a", 403),
            ("GET", "http://web:80/a", 403),
            ("GET", "http://web/a/../b", 403),
            ("GET", "http://web/a/%2e%2e/b", 403),
            ("GET", "http://web/a/x", 200),
        ] {
            let (code, body, _) = answered(client.send_request(request(method, url, empty())).await.unwrap()).await;
            assert_eq!(code, wanted, "{method} {url}");
            assert!(code == 200 || body == "Access denied\r\n");
        }
    });
    assert_eq!(*seen.lock().unwrap(), ["GET web /a?x", "GET web /a/x"]);
    let records = proxy.records();
    assert_eq!(records.len(), 16);
    let proxy_api::Application::Http(http) = &records[1].application else { panic!() };
    assert_eq!((http.protocol.as_str(), http.code, http.url.as_str()), ("HTTP/2", Some(200), "http://web/a?x"));
}

#[test]
fn a_denied_grpc_call_has_status_7() {
    let (address, seen) = origin();
    let proxy = Proxy::http(address, r#"[{"method":"POST","path":"/emojivoto.v1.VotingService/VoteDoughnut"}]"#);
    proxy.block_on(async {
        let mut client = connect(proxy.address).await;
        for (path, status) in [("VoteDoughnut", None), ("VoteRocket", Some("7"))] {
            let mut call = request("POST", &format!("http://web/emojivoto.v1.VotingService/{path}"), empty());
            call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            call.headers_mut().insert("te", "trailers".parse().unwrap());
            let response = client.send_request(call).await.unwrap();
            assert_eq!(response.status(), 200);
            let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(header("grpc-status").as_deref(), status);
            if status.is_some() {
                assert_eq!(header("content-type").as_deref(), Some("application/grpc"));
                assert_eq!(header("grpc-message").as_deref(), Some("Access denied%0D%0A"));
            }
        }
    });
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[test]
fn bodies_and_trailers_stream_both_ways() {
    let (address, _) = origin();
    let proxy = Proxy::http(address, "[{}]");
    proxy.block_on(async {
        let mut client = connect(proxy.address).await;
        let (send, body) = streamed();
        let mut response = client.send_request(request("POST", "http://web/", body)).await.unwrap();
        for round in 0..50 {
            let data = Bytes::from(vec![round; 10_000]);
            send.send(Frame::data(data.clone())).await.unwrap();
            let mut back = Vec::new();
            while back.len() < data.len() {
                back.extend_from_slice(&response.frame().await.unwrap().unwrap().into_data().unwrap());
            }
            assert_eq!(back, data);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        send.send(Frame::trailers(trailers.clone())).await.unwrap();
        drop(send);
        let (_, rest, back) = answered(response).await;
        assert_eq!((rest.len(), back), (0, Some(trailers)));
    });
}

#[test]
fn a_stream_on_which_nothing_moves_is_ended_and_others_go_on() {
    let (address, _) = origin();
    let proxy = Proxy::http(address, "[{}]");
    proxy.settings(|settings| settings.timeouts.stream_idle = 200);
    proxy.block_on(async {
        let mut client = connect(proxy.address).await;
        let (send, body) = streamed();
        let mut response = client.send_request(request("POST", "http://web/", body)).await.unwrap();
        // Longer than it may be idle, and not idle.
        for _ in 0..6 {
            send.send(Frame::data(Bytes::from("x"))).await.unwrap();
            assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "x");
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        }
        assert!(response.frame().await.unwrap().is_err(), "an end that is none is seen to be");
        assert_eq!(client.send_request(request("GET", "http://web/", empty())).await.unwrap().status(), 200);
    });
}

#[test]
fn a57_contradicting_hosts_and_connect_are_refused() {
    let (address, seen) = origin();
    let proxy = Proxy::http(address, "[{}]");
    proxy.block_on(async {
        let mut client = connect(proxy.address).await;
        let mut two = request("GET", "http://web/", empty());
        two.headers_mut().insert("host", "other".parse().unwrap());
        assert_eq!(client.send_request(two).await.unwrap().status(), 400);
        let mut same = request("GET", "http://web/", empty());
        same.headers_mut().insert("host", "web".parse().unwrap());
        assert_eq!(client.send_request(same).await.unwrap().status(), 200);
        let mut twice = request("GET", "/", empty());
        twice.headers_mut().append("host", "web".parse().unwrap());
        twice.headers_mut().append("host", "web".parse().unwrap());
        assert_eq!(client.send_request(twice).await.unwrap().status(), 400);
        let user = request("GET", "http://u:p@web/", empty());
        // The client's library may refuse it itself.
        assert!(client.send_request(user).await.map_or(400, |answer| answer.status().as_u16()) != 200);
    });
    assert_eq!(*seen.lock().unwrap(), ["GET web /"]);
}

#[test]
fn a_change_of_policy_reaches_running_connections_with_the_next_request() {
    let (address, _) = origin();
    let proxy = Proxy::http(address, r#"[{"path":"/a"}]"#);
    proxy.block_on(async {
        let mut client = connect(proxy.address).await;
        let url = "http://web/a";
        assert_eq!(client.send_request(request("GET", url, empty())).await.unwrap().status(), 200);
        proxy.set(vec![http_rules(1, r#"[{"path":"/b"}]"#)]);
        assert_eq!(client.send_request(request("GET", url, empty())).await.unwrap().status(), 403);
        *proxy.known.0.lock().unwrap() = None;
        assert_eq!(client.send_request(request("GET", "http://web/b", empty())).await.unwrap().status(), 403);
        // Nothing could pass here any more, whatever the rules are: the client learns that it has to connect anew.
        *proxy.known.0.lock().unwrap() = Some(FACTS);
        proxy.tasks.close();
        tokio::time::timeout(std::time::Duration::from_secs(5), proxy.tasks.wait()).await.unwrap();
        assert!(client.send_request(request("GET", "http://web/b", empty())).await.is_err());
        client = connect(proxy.address).await;
        assert_eq!(client.send_request(request("GET", "http://web/b", empty())).await.unwrap().status(), 200);
    });
}

#[test]
fn a_drained_proxy_ends_connections_after_their_requests() {
    let (address, _) = origin();
    let proxy = Proxy::http(address, "[{}]");
    proxy.block_on(async {
        let mut client = connect(proxy.address).await;
        assert_eq!(client.send_request(request("GET", "http://web/", empty())).await.unwrap().status(), 200);
        proxy.shared.begin_drain();
        proxy.tasks.close();
        tokio::time::timeout(std::time::Duration::from_secs(5), proxy.tasks.wait()).await.unwrap();
        assert!(client.send_request(request("GET", "http://web/", empty())).await.is_err());
    });
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// GET http a /, all from the table or literal.
pub fn get() -> Vec<u8> {
    vec![0x82, 0x86, 0x84, 0x41, 0x01, b'a']
}

/// True if a frame GOAWAY came, or the connection ended.
pub fn is_ended(client: &mut Peer) -> bool {
    loop {
        let head = client.read(9);
        if head.len() < 9 {
            // A read that only took too long has not ended it.
            return !matches!(std::io::Read::read(&mut client.0, &mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        client.read(length);
        if head[3] == 7 {
            return true;
        }
    }
}

#[test]
fn a60_rapid_resets_end_the_connection() {
    let (address, seen) = origin();
    let proxy = Proxy::http(address, "[{}]");
    let mut client = proxy.client();
    let mut bytes = PREFACE.to_vec();
    for stream in (1..4_000u32).step_by(2) {
        bytes.extend(frame(1, 5, stream, &get()));
        bytes.extend(frame(3, 0, stream, &[0, 0, 0, 8]));
    }
    client.write(bytes);
    assert!(is_ended(&mut client));
    assert!(seen.lock().unwrap().len() < 400, "{}", seen.lock().unwrap().len());
}

#[test]
fn a60_a_flood_of_continuations_ends_the_connection() {
    let (address, seen) = origin();
    let proxy = Proxy::http(address, "[{}]");
    let mut client = proxy.client();
    client.write(PREFACE);
    client.write(frame(1, 1, 1, &get()));
    for _ in 0..2_000 {
        // A header that is in no table: x: yyyy...
        client.write(frame(9, 0, 1, &[&[0x00, 1, b'x', 0x7f, 0x81, 0x06][..], &[b'y'; 1_024]].concat()));
    }
    assert!(is_ended(&mut client));
    assert_eq!(seen.lock().unwrap().len(), 0);
}

#[test]
fn a60_floods_of_settings_and_pings_do_not_grow() {
    let (address, _) = origin();
    let proxy = Proxy::http(address, "[{}]");
    let mut client = proxy.client();
    client.write(PREFACE);
    client.0.set_write_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
    // Who does not read the answers is not read from, at some point, or is sent away.
    let mut flood = [frame(4, 0, 0, &[]), frame(6, 0, 0, &[1; 8])].concat();
    flood = flood.repeat(2_000);
    let stopped = (0..400).any(|_| std::io::Write::write_all(&mut client.0, &flood).is_err());
    assert!(stopped, "26 MB of frames were taken from a client that reads nothing");
}

/// A header that is in no table, by its name or by its number there.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0, u8::try_from(name.len()).unwrap()][..], name, &[u8::try_from(value.len()).unwrap()], value].concat()
}

#[test]
fn a56_a57_paths_and_hosts_are_judged_as_on_http1() {
    let (address, seen) = origin();
    let proxy = Proxy::http(address, r#"[{"host":"good\\.example","path":"/public(/.*)?"}]"#);
    let status = |path: &str, host: &str| {
        let mut client = proxy.client();
        client.write(PREFACE);
        let head = [&[0x82, 0x86][..], &literal(b":path", path.as_bytes()), &literal(b":authority", host.as_bytes())];
        client.write(frame(1, 5, 1, &head.concat()));
        loop {
            let head = client.read(9);
            let payload = client.read(usize::from(u16::from_be_bytes([head[1], head[2]])));
            match head[3] {
                // 200 is in the table; what is denied is 403, and what is none is 400, both there or as text; or a reset.
                1 => return payload[0] == 0x88,
                3 | 7 => return false,
                _ => {}
            }
        }
    };
    assert!(status("/public/a?x=/../admin", "good.example"));
    assert!(status("/public/a//b", "good.example"));
    // What a server would not see is not judged either.
    assert!(status("/public#/../admin", "good.example"));
    for path in [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/..%2fadmin",
        "/public/..%5cadmin",
        "/public/..;/admin",
        "/public//../../admin",
        "//public/a",
        "/admin#/public",
        "/admin?/public",
        "public",
        "",
        "*",
    ] {
        assert!(!status(path, "good.example"), "{path}");
    }
    for host in ["GOOD.example", "good.example.", "good.example:80", "goodxexample", "u@good.example", ""] {
        assert!(!status("/public", host), "{host}");
    }
    let seen = seen.lock().unwrap();
    let expected = ["/public/a?x=/../admin", "/public/a//b", "/public"].map(|path| format!("GET good.example {path}"));
    assert_eq!(*seen, expected);
}

#[test]
fn a58_all_values_of_a_header_count() {
    let (address, seen) = origin();
    let proxy = Proxy::http(address, r#"[{"headers":["x: a"]}]"#);
    proxy.block_on(async {
        let mut client = connect(proxy.address).await;
        for (values, code) in [(&["a"][..], 200), (&["a", "b"], 403), (&["b", "a"], 403), (&[], 403)] {
            let mut asked = request("GET", "http://web/", empty());
            for value in values {
                asked.headers_mut().append("x", value.parse().unwrap());
            }
            assert_eq!(client.send_request(asked).await.unwrap().status(), code, "{values:?}");
        }
    });
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[test]
fn a59_connection_headers_of_http1_are_refused_in_http2() {
    let (address, seen) = origin();
    let proxy = Proxy::http(address, "[{}]");
    let mut client = proxy.client();
    client.write(PREFACE);
    for (stream, (name, value)) in (1u32..).step_by(2).zip([
        (&b"transfer-encoding"[..], &b"chunked"[..]),
        (b"connection", b"close"),
        (b"upgrade", b"websocket"),
        (b"X-Upper", b"1"),
        (b"x", b"a\r\nb: c"),
        (b"x", b"a\0b"),
    ]) {
        client.write(frame(1, 5, stream, &[get(), literal(name, value)].concat()));
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(*seen.lock().unwrap(), [""; 0]);
}

/// As with Cilium's Envoy, which does not allow it either: clients see that and use HTTP/1.1 for WebSocket.
#[test]
fn a59_extended_connect_is_not_offered_and_refused() {
    let (address, seen) = origin();
    let proxy = Proxy::http(address, "[{}]");
    let mut client = proxy.client();
    client.write(PREFACE);
    let head = client.read(9);
    let settings = client.read(usize::from(u16::from_be_bytes([head[1], head[2]])));
    assert_eq!((head[3], settings.len() % 6), (4, 0));
    assert!(settings.chunks(6).all(|setting| setting[..2] != [0, 8]), "ENABLE_CONNECT_PROTOCOL: {settings:?}");
    let fields = [&b"\x02\x07CONNECT\x00\x09:protocol\x09websocket\x86\x04\x03/ws\x41\x01a"[..]].concat();
    client.write(frame(1, 4, 1, &fields));
    // Refused by a reset, an answer of 400, or the end; then others go on, if it was not the end.
    let head = loop {
        let head = client.read(9);
        client.read(usize::from(u16::from_be_bytes([head[1], head[2]])));
        if head[3] != 4 && head[3] != 8 {
            break head;
        }
    };
    assert!([1, 3, 7].contains(&head[3]), "{head:?}");
    assert_eq!(*seen.lock().unwrap(), [""; 0]);
}
