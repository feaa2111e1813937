//! Is every request judged by what holds when it comes, while rules and facts change?

use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::*;

#[test]
fn a_change_of_policy_reaches_running_connections_with_the_next_request() {
    let origin = Origin::new();
    let proxy = Proxy::http(origin.address, r#"[{"path":"/a"}]"#);
    let get = |client: &mut Peer, path: &str| {
        client.write(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.answer().0
    };
    let mut clients: Vec<Peer> = (0..4).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!((get(client, "/a"), get(client, "/b")), (200, 403));
    }
    proxy.set(vec![http_rules(1, r#"[{"path":"/b"}]"#), http_rules(2, r#"[{"path":"/c"}]"#)]);
    for client in &mut clients {
        assert_eq!((get(client, "/a"), get(client, "/b")), (403, 200));
    }
    // The datapath gives them another rule set.
    let now = |facts| *proxy.known.0.lock().unwrap() = facts;
    now(Some(proxy_api::Facts { rule_set: 2, ..FACTS }));
    for client in &mut clients {
        assert_eq!((get(client, "/b"), get(client, "/c")), (403, 200));
    }
    // One that nobody knows; it is nobody's any more; another's; of another identity. That ends them.
    for (client, facts) in clients.iter_mut().zip([
        Some(proxy_api::Facts { rule_set: 3, ..FACTS }),
        None,
        Some(proxy_api::Facts { rule_set: 2, endpoint: 8, ..FACTS }),
        Some(proxy_api::Facts { rule_set: 2, source_identity: 9, ..FACTS }),
    ]) {
        now(facts);
        assert_eq!((get(client, "/c"), client.rest()), (403, vec![]));
    }
}

#[test]
fn a02_a03_each_connection_has_the_rules_of_its_own_peer() {
    let origin = Origin::new();
    let proxy = Proxy::new(origin.address, vec![http_rules(1, r#"[{"path":"/a"}]"#), http_rules(2, "[{}]")]);
    let of = |rule_set| Some(proxy_api::Facts { rule_set, ..FACTS });
    *proxy.known.0.lock().unwrap() = of(2);
    assert_eq!(proxy.code("GET /b"), 200);
    *proxy.known.0.lock().unwrap() = of(1);
    assert_eq!((proxy.code("GET /b"), proxy.code("GET /a")), (403, 200));
}

/// Status and body of the next answer.
fn next_answer(reader: &mut impl BufRead) -> (u16, Vec<u8>) {
    let (mut head, mut body) = (String::new(), Vec::new());
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "the connection ended: {head:?}");
    }
    let length = head.to_ascii_lowercase().split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse();
    body.resize(length.unwrap(), 0);
    reader.read_exact(&mut body).unwrap();
    (code(&head), body)
}

/// A hundred thousand requests, every second of which no rules allow.
#[test]
fn a04_no_request_is_skipped_while_rules_change() {
    const REQUESTS: usize = 100_000;
    const PAIRS: usize = 50;
    let slipped = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&slipped);
    let address = server(move |mut client| {
        let reader = BufReader::new(client.0.try_clone().unwrap());
        for line in reader.lines().map_while(Result::ok) {
            if line.starts_with("GET /a ") {
                client.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            } else if line.starts_with("GET ") {
                seen.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let proxy = Proxy::http(address, r#"[{"path":"/a"}]"#);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0u32;
            while !done.load(Ordering::Relaxed) {
                number += 1;
                proxy.set(vec![http_rules(1, &format!(r#"[{{"path":"/a"}},{{"path":"/x{}"}}]"#, number % 7))]);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let ask = || {
            let mut client = proxy.client();
            let mut reader = BufReader::new(client.0.try_clone().unwrap());
            let pairs = "GET /secret HTTP/1.1\r\nHost: a\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n".repeat(PAIRS);
            for _ in 0..REQUESTS / 2 / (2 * PAIRS) {
                client.write(&pairs);
                for _ in 0..PAIRS {
                    assert_eq!((next_answer(&mut reader).0, next_answer(&mut reader)), (403, (200, b"ok".to_vec())));
                }
            }
        };
        let clients = [scope.spawn(ask), scope.spawn(ask)];
        let ended = clients.map(|client| client.join().is_ok());
        done.store(true, Ordering::Relaxed);
        assert_eq!(ended, [true, true]);
    });
    assert_eq!(slipped.load(Ordering::Relaxed), 0);
}
