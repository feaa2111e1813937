//! Does the proxy bound what one client can take?

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::*;

#[test]
fn a59_heads_are_bounded_in_bytes_lines_and_time() {
    let origin = Origin::new();
    let proxy = Proxy::http(origin.address, "[{}]");
    proxy.settings(|settings| {
        settings.limits.head_bytes = 20_000;
        settings.limits.headers = 20;
        settings.timeouts.head = 300;
    });
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20_000));
    assert_eq!(code(&proxy.send(long)), 431);
    let fits = format!("GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "x".repeat(19_000));
    assert_eq!(code(&proxy.send(fits)), 200);
    assert_eq!(proxy.code(&format!("GET /\n{}", "A: 1\n".repeat(30))), 431);
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "A: 1\r\n".repeat(10_000));
    assert_eq!(code(&proxy.send(endless)), 431);
    // A byte now and then does not help.
    let started = Instant::now();
    let mut client = proxy.client();
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: yes\r\n" {
        client.write([*byte]);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(code(&String::from_utf8(client.rest()).unwrap()), 408);
    assert!(started.elapsed() < Duration::from_secs(5));
    origin.seen();
}

#[test]
fn idle_connections_end() {
    let proxy = Proxy::http(Origin::new().address, "[{}]");
    proxy.settings(|settings| settings.timeouts.idle = 100);
    assert_eq!(proxy.client().rest(), b"");
    let mut client = proxy.client();
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().0, 200);
    assert_eq!(client.rest(), b"");
}

#[test]
fn connections_to_servers_end_by_the_settings_and_the_client_s_stays() {
    let changes: [fn(&mut proxy_api::Settings); 4] = [
        |_| {},
        |settings| settings.limits.upstream_requests = 2,
        |settings| settings.timeouts.upstream_duration = 1,
        |settings| settings.timeouts.upstream_idle = 40,
    ];
    // A connection whose time is over ends with its next answer, which may be the one after the first.
    for (change, connections) in changes.into_iter().zip([1..=1, 2..=2, 2..=4, 4..=4]) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let address = server(move |mut client| {
            counted.fetch_add(1, Ordering::Relaxed);
            while !client.head().is_empty() {
                client.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        });
        let proxy = Proxy::http(address, "[{}]");
        proxy.settings(change);
        let mut client = proxy.client();
        for _ in 0..4 {
            client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.answer().0, 200);
            std::thread::sleep(Duration::from_millis(120));
        }
        assert!(connections.contains(&count.load(Ordering::Relaxed)), "{connections:?}");
    }
}

#[test]
fn a_server_that_does_not_answer_is_not_waited_for() {
    let address = server(|mut client| {
        client.head();
        client.rest();
    });
    let proxy = Proxy::http(address, "[{}]");
    proxy.settings(|settings| settings.timeouts.request = 200);
    assert_eq!(proxy.code("GET /"), 504);
    // Nor one that stops within its answer.
    let address = server(|mut client| {
        client.head();
        client.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        client.rest();
    });
    let proxy = Proxy::http(address, "[{}]");
    proxy.settings(|settings| settings.timeouts.stream_idle = 200);
    let mut client = proxy.client();
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    assert_eq!(client.read(4), b"half");
    assert!(client.is_reset());
}

#[test]
fn more_connections_than_may_be_are_refused() {
    let proxy = Proxy::http(Origin::new().address, "[{}]");
    proxy.settings(|settings| settings.limits.connections = 3);
    let mut clients: Vec<_> = (0..3).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().0, 200);
    }
    assert!(proxy.client().is_reset());
    clients.pop();
    eventually("a place is free again", || proxy.shared.open() == 2);
    assert_eq!(proxy.code("GET /"), 200);
    proxy.settings(|settings| settings.limits.connections_per_endpoint = 2);
    eventually("as many as before", || proxy.shared.open() == 2);
    assert!(proxy.client().is_reset(), "the endpoint has two");
    *proxy.known.0.lock().unwrap() = Some(proxy_api::Facts { endpoint: 8, ..FACTS });
    assert_eq!(proxy.code("GET /"), 200, "another endpoint has none");
}

#[test]
fn a_body_is_not_gathered_before_a_slow_server() {
    let address = server(|mut client| {
        client.head();
        std::thread::sleep(Duration::from_secs(2));
        let read: usize = (0..64).map(|_| client.read(1 << 20).len()).sum();
        client.write(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Read: {read}\r\n\r\n"));
    });
    let proxy = Proxy::http(address, "[{}]");
    let mut client = proxy.client();
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 67108864\r\n\r\n");
    let started = Instant::now();
    for _ in 0..64 {
        client.write(vec![0; 1 << 20]);
    }
    // The client had to wait: what was in flight fits socket buffers.
    assert!(started.elapsed() > Duration::from_millis(1_500), "{:?}", started.elapsed());
    assert!(client.head().contains("X-Read: 67108864"));
}

#[test]
fn a60_compressed_bodies_are_not_opened() {
    const BODY: &str = "\x1f\u{8b}not really gzip";
    let address = server(|mut client| {
        client.head();
        client.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n{BODY}",
            BODY.len()
        ));
    });
    let proxy = Proxy::http(address, "[{}]");
    assert!(proxy.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ends_with(BODY));
}
