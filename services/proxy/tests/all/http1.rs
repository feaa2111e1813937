//! Does HTTP/1 pass as it came, and only what rules allow?

use std::time::Duration;

use crate::harness::*;

const DENIED: &str = "Access denied\r\n";

#[test]
fn e0_28_allowed_requests_pass_byte_for_byte_and_others_get_403() {
    let origin = Origin::new();
    let proxy =
        Proxy::http(origin.address, r#"[{"method":"GET","path":"/downloads"},{"method":"PUT","path":"/upload"}]"#);
    let head = "GET /downloads HTTP/1.1\r\nhOST:web:80\r\nX-b:  2\r\nx-A: 1\r\nX-b: 3 \r\nConnection: close\r\n\r\n";
    assert!(proxy.send(head).ends_with("\r\n\r\nok"));
    assert_eq!(origin.seen(), [head]);
    for request in ["GET /upload", "PUT /downloads", "GET /", "GET /downloads/x", "get /downloads", "DELETE /upload"] {
        assert_eq!(proxy.code(request), 403, "{request}");
    }
    assert_eq!(proxy.code("PUT /upload"), 200);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn e0_28_a_denial_is_what_cilium_answers() {
    let origin = Origin::new();
    let proxy = Proxy::http(origin.address, r#"[{"path":"/ok"}]"#);
    let answer = proxy.send("GET /no HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, DENIED);
    assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\ncontent-length: 15\r\ncontent-type: text/plain\r\n"), "{head}");
    let answer = proxy.send("HEAD /no HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    proxy.settings(|settings| settings.denied_message = "no\r\n".into());
    assert!(proxy.send("GET /no HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ends_with("\r\n\r\nno\r\n"));
}

#[test]
fn a_denied_grpc_call_is_answered_in_grpc() {
    let proxy = Proxy::http(Origin::new().address, r#"[{"path":"/ok"}]"#);
    let answer = proxy
        .send("POST /s/M HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc+proto\r\nConnection: close\r\n\r\n");
    assert_eq!(code(&answer), 200);
    for line in ["content-type: application/grpc\r\n", "grpc-status: 7\r\n", "grpc-message: Access denied%0D%0A\r\n"] {
        assert!(answer.contains(line), "{answer}");
    }
}

#[test]
fn a59_pipelined_requests_are_judged_one_by_one() {
    let origin = Origin::new();
    let proxy = Proxy::http(origin.address, r#"[{"path":"/a"},{"path":"/c"}]"#);
    let mut client = proxy.client();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.write(get("/a") + &get("/b") + &get("/c") + "\r\n" + &get("/b"));
    let answers: Vec<_> = (0..4).map(|_| client.answer()).collect();
    let (ok, denied) = ((200, "ok".to_owned()), (403, DENIED.to_owned()));
    assert_eq!(answers, [ok.clone(), denied.clone(), ok, denied]);
    assert_eq!(origin.seen(), [get("/a"), get("/c")]);
}

#[test]
fn a59_what_follows_a_body_is_the_next_request() {
    let address = server(|mut client| {
        assert!(client.head().starts_with("POST /a"));
        assert_eq!(client.read(5), b"hello");
        client.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.head(), "");
    });
    let proxy = Proxy::http(address, r#"[{"path":"/a"}]"#);
    let mut client = proxy.client();
    client.write("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /admin HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((client.answer().0, client.answer().0), (200, 403));
}

#[test]
fn bodies_and_trailers_stream_both_ways() {
    const BODY: &str = "5;x=y\r\nhello\r\n0\r\nX-Sum: 9\r\n\r\n";
    let address = server(|mut client| {
        client.head();
        // The answer begins before the request has ended.
        client.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5;x=y\r\n");
        assert_eq!(client.read(BODY.len()), BODY.as_bytes());
        client.write(&BODY[7..]);
    });
    let proxy = Proxy::http(address, "[{}]");
    let mut client = proxy.client();
    client.write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=");
    assert!(client.head().contains("Trailer: X-Sum"));
    assert_eq!(client.read(7), b"5;x=y\r\n");
    client.write(&BODY[4..]);
    assert_eq!(client.read(BODY.len() - 7), &BODY.as_bytes()[7..]);
}

#[test]
fn large_bodies_pass_whole_and_are_not_kept() {
    const SIZE: usize = 40 << 20;
    let address = server(|mut client| {
        client.head();
        let mut sum = 0u64;
        for _ in 0..SIZE >> 20 {
            sum += client.read(1 << 20).iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
        client.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nX-Sum: {sum}\r\n\r\n"));
        (0..SIZE >> 20).for_each(|_| client.write(vec![3; 1 << 20]));
    });
    let proxy = Proxy::http(address, "[{}]");
    let mut client = proxy.client();
    client.write(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n"));
    (0..SIZE >> 20).for_each(|_| client.write(vec![2; 1 << 20]));
    let head = client.head();
    assert!(head.contains(&format!("X-Sum: {}\r\n", 2 * SIZE)), "{head}");
    let received: usize = (0..SIZE >> 20).map(|_| client.read(1 << 20).iter().filter(|byte| **byte == 3).count()).sum();
    assert_eq!(received, SIZE);
}

#[test]
fn interim_answers_and_expectations_pass() {
    let address = server(|mut client| {
        assert!(client.head().contains("Expect: 100-continue"));
        client.write("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(client.read(4), b"body");
        client.write("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    });
    let proxy = Proxy::http(address, "[{}]");
    let mut client = proxy.client();
    client.write("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.write("body");
    assert_eq!(client.answer().0, 201);
}

#[test]
fn a_denied_request_with_a_body_ends_its_connection_with_the_answer() {
    let proxy = Proxy::http(Origin::new().address, r#"[{"path":"/ok"}]"#);
    let mut client = proxy.client();
    client.write("PUT /no HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n");
    let answer = String::from_utf8(client.rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("connection: close"), "{answer}");
    let mut client = proxy.client();
    client.write("PUT /no HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    client.write(vec![b'x'; 100_000]);
    assert!(client.rest().ends_with(DENIED.as_bytes()));
}

#[test]
fn answers_without_body_end_with_their_head() {
    for (method, status) in [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")] {
        let address = server(move |mut client| {
            while !client.head().is_empty() {
                let length = if status.starts_with("204") { "" } else { "Content-Length: 10\r\n" };
                client.write(format!("HTTP/1.1 {status}\r\n{length}\r\n"));
            }
        });
        let proxy = Proxy::http(address, "[{}]");
        let mut client = proxy.client();
        for _ in 0..2 {
            client.write(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert!(client.head().contains(status));
        }
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_passes() {
    let address = server(|mut client| {
        client.head();
        client.write("HTTP/1.0 200 OK\r\n\r\nall of it");
    });
    let proxy = Proxy::http(address, "[{}]");
    assert_eq!(proxy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "HTTP/1.0 200 OK\r\n\r\nall of it");
}

#[test]
fn old_clients_are_served() {
    let proxy = Proxy::http(Origin::new().address, r#"[{"path":"/ok"}]"#);
    assert!(proxy.send("GET /ok HTTP/1.0\r\nConnection: close\r\n\r\n").ends_with("ok"));
    assert!(proxy.send("GET /no HTTP/1.0\r\n\r\n").ends_with(DENIED));
}

#[test]
fn a59_a_websocket_is_judged_when_it_opens_and_then_passes_bytes() {
    let address = server(|mut client| {
        assert!(client.head().contains("Upgrade: websocket"));
        client.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x01\x02");
        assert_eq!(client.read(41), b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\nand bytes");
        client.write("\x03");
        assert_eq!(client.rest(), b"");
        client.write("\x04");
    });
    let proxy = Proxy::http(address, r#"[{"path":"/ws"}]"#);
    let request = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
        )
    };
    let mut client = proxy.client();
    client.write(request("/ws"));
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.read(2), [1, 2]);
    client.write("GET /admin HTTP/1.1\r\nHost: a\r\n\r\nand bytes");
    assert_eq!(client.read(1), [3]);
    client.end();
    assert_eq!(client.rest(), [4]);
    assert_eq!(code(&proxy.send(request("/other") + &request("/other"))), 403);
}

#[test]
fn a59_without_101_what_follows_an_upgrade_is_judged() {
    let origin = Origin::answering("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::http(origin.address, r#"[{"path":"/ws"}]"#);
    let mut client = proxy.client();
    client.write("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 9\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((client.answer().0, client.answer().0), (426, 403));
    assert_eq!(origin.seen().len(), 1);
    // And a server that changes protocols unasked is not believed.
    let address = server(|mut client| {
        client.head();
        client.write("HTTP/1.1 101 Switching Protocols\r\n\r\n");
        assert_eq!(client.rest(), b"");
    });
    assert_eq!(Proxy::http(address, "[{}]").code("GET /"), 502);
}

#[test]
fn a59_h2c_is_not_offered_to_the_server_and_other_upgrades_are_refused() {
    let origin = Origin::new();
    let proxy = Proxy::http(origin.address, "[{}]");
    let answer = proxy.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n");
    assert_eq!(code(&answer), 200);
    assert_eq!(origin.seen(), ["GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"]);
    for upgrade in ["TLS/1.0", "websocket, h2c", "HTTP/2.0", "spdy/3.1"] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n");
        let mut client = proxy.client();
        client.write(head);
        assert_eq!(client.answer().0, 403, "{upgrade}");
    }
    assert_eq!(origin.seen().len(), 0);
}

#[test]
fn a59_connect_is_judged_and_opens_only_with_a_success() {
    let address = server(|mut client| {
        let head = client.head();
        if head.starts_with("CONNECT good:1 ") {
            client.write("HTTP/1.1 200 OK\r\n\r\n");
            assert_eq!(client.read(5), b"bytes");
            client.write("back");
        } else {
            client.write("HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(client.rest(), b"");
        }
    });
    let proxy = Proxy::http(address, r#"[{"method":"CONNECT","host":"(good|maybe):1"}]"#);
    let mut client = proxy.client();
    client.write("CONNECT good:1 HTTP/1.1\r\nHost: good:1\r\n\r\nbytes");
    assert_eq!(client.head(), "HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(client.rest(), b"back");
    let mut client = proxy.client();
    client.write("CONNECT maybe:1 HTTP/1.1\r\nHost: maybe:1\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((client.answer().0, client.answer().0), (405, 403));
    assert_eq!(code(&proxy.send("CONNECT bad:1 HTTP/1.1\r\nHost: bad:1\r\n\r\n")), 403);
    assert_eq!(code(&proxy.send("CONNECT good:1 HTTP/1.1\r\nHost: good:1\r\nContent-Length: 3\r\n\r\nabc")), 400);
}

#[test]
fn headers_are_added_deleted_and_replaced() {
    let origin = Origin::new();
    let rule =
        |mismatch: &str| format!(r#"[{{"headerMatches":[{{"name":"X-T","value":"v","mismatch":"{mismatch}"}}]}}]"#);
    let seen = |mismatch: &str, line: &str| {
        let proxy = Proxy::http(origin.address, &rule(mismatch));
        proxy.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{line}Connection: close\r\nZ: 1\r\n\r\n"));
        origin.seen().concat().replace("GET / HTTP/1.1\r\nHost: a\r\n", "").replace("Connection: close\r\n", "")
    };
    assert_eq!(seen("LOG", "X-T: w\r\n"), "X-T: w\r\nZ: 1\r\n\r\n");
    assert_eq!(seen("ADD", "X-T: w\r\n"), "X-T: w\r\nZ: 1\r\nx-t: v\r\n\r\n");
    assert_eq!(seen("DELETE", "X-T: w\r\nx-t: u\r\n"), "Z: 1\r\n\r\n");
    assert_eq!(seen("REPLACE", "X-T: w\r\nx-t: u\r\n"), "Z: 1\r\nx-t: v\r\n\r\n");
    assert_eq!(seen("REPLACE", "X-T: v\r\n"), "X-T: v\r\nZ: 1\r\n\r\n");
}

#[test]
fn a_server_that_fails_is_told_apart_from_one_that_denies() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(Proxy::http(closed, "[{}]").code("GET /"), 503);
    let silent = server(|mut client| drop(client.head()));
    assert_eq!(Proxy::http(silent, "[{}]").code("GET /"), 502);
    let garbage = server(|mut client| {
        client.head();
        client.write("garbage\r\n\r\n");
    });
    assert_eq!(Proxy::http(garbage, "[{}]").code("GET /"), 502);
    let smuggling = server(|mut client| {
        client.head();
        client.write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    });
    assert_eq!(Proxy::http(smuggling, "[{}]").code("GET /"), 502);
}

#[test]
fn an_answer_that_is_cut_off_is_seen_to_be() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
    ] {
        let address = server(move |mut client| {
            client.head();
            client.write(answer);
        });
        let proxy = Proxy::http(address, "[{}]");
        let mut client = proxy.client();
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.head();
        while client.read(1).len() == 1 {}
        assert!(client.is_reset() || client.0.take_error().is_ok());
    }
}

#[test]
fn a_server_that_ends_ends_the_client_and_a_client_that_ends_is_told_to_the_server() {
    let address = server(|mut client| {
        client.head();
        client.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let proxy = Proxy::http(address, "[{}]");
    let mut client = proxy.client();
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((client.answer().0, client.rest()), (200, vec![]));
    let (told, ended) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let address = server(move |mut client| {
        client.head();
        told.lock().unwrap().send(client.rest().is_empty()).unwrap();
        client.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    });
    let proxy = Proxy::http(address, "[{}]");
    let mut client = proxy.client();
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.end();
    assert!(ended.recv_timeout(Duration::from_secs(5)).unwrap());
    assert!(client.rest().ends_with(b"late"));
}

#[test]
fn a_server_that_speaks_unasked_is_not_believed() {
    let address = server(|mut client| {
        client.head();
        client.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
        client.head();
    });
    let proxy = Proxy::http(address, "[{}]");
    let mut client = proxy.client();
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    let all = String::from_utf8(client.rest()).unwrap();
    assert!(!all.contains("poison"), "{all}");
}

#[test]
fn a_drained_proxy_ends_connections_with_their_next_answer() {
    let proxy = Proxy::http(Origin::new().address, "[{}]");
    let mut client = proxy.client();
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().0, 200);
    proxy.shared.begin_drain();
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let rest = String::from_utf8(client.rest()).unwrap();
    assert!(rest.contains("\r\nConnection: close\r\n") && rest.ends_with("ok"), "{rest}");
    proxy.tasks.close();
    proxy.block_on(async { tokio::time::timeout(Duration::from_secs(5), proxy.tasks.wait()).await }).unwrap();
}
