//! Does the proxy bound what a server, or a client that does not read, can take?

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proxy_api::*;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::*;
use crate::http2;
use crate::kafka::kafka_rules;

/// An address at which nobody answers a SYN: connections wait to be taken as many as may, and the kernel drops others.
struct Silent {
    address: SocketAddr,
    _listener: Socket,
    _waiting: Vec<Socket>,
}

impl Silent {
    fn new() -> Silent {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::from("127.0.0.1:0".parse::<SocketAddr>().unwrap())).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            if socket.connect_timeout(&address, Duration::from_millis(100)).is_err() {
                break;
            }
            waiting.push(socket);
            assert!(waiting.len() < 16, "somebody answers");
        }
        Silent { address: address.as_socket().unwrap(), _listener: listener, _waiting: waiting }
    }
}

/// What was told of failures, with its code.
fn failures(proxy: &Proxy) -> Vec<(Option<u16>, String)> {
    let failed = proxy.records().into_iter().filter(|record| record.verdict == Verdict::Error);
    let code = |application| if let Application::Http(http) = application { http.code } else { None };
    failed.map(|record| (code(record.application), record.info)).collect()
}

fn impatient(proxy: &Proxy) {
    proxy.settings(|settings| settings.timeouts.connect = 300);
}

#[test]
fn a_server_that_answers_no_syn_is_given_up_in_time_and_told_of() {
    let silent = Silent::new();
    let started = Instant::now();
    let proxy = Proxy::http(silent.address, "[{}]");
    impatient(&proxy);
    assert_eq!(proxy.code("GET /"), 503);
    assert_eq!(failures(&proxy), [(Some(503), "the server cannot be reached".into())]);
    // Streams that wait for one attempt share its end.
    proxy.block_on(async {
        let client = http2::connect(proxy.address).await;
        let asked = (0..20).map(|_| {
            let mut client = client.clone();
            async move { client.send_request(http2::request("GET", "http://web/", http2::empty())).await }
        });
        for answer in futures::future::join_all(asked).await {
            assert_eq!(answer.unwrap().status(), 503);
        }
    });
    assert_eq!(failures(&proxy).len(), 20);
    let names = RuleSet { server_names: vec!["*.example".into()], ..RuleSet::open(1, Parser::Tls) };
    for set in [kafka_rules("[{}]"), names, RuleSet::open(1, Parser::Tcp)] {
        let told = usize::from(set.parser != Parser::Tcp);
        let proxy = Proxy::new(silent.address, vec![set]);
        impatient(&proxy);
        let mut client = proxy.client();
        client.write(if told == 1 && proxy.shared.rules.load().get(1).unwrap().kafka.is_none() {
            hello()
        } else {
            [&12i32.to_be_bytes()[..], &12i16.to_be_bytes(), &[0, 3], &[0, 0, 0, 1], &[0xff, 0xff, 0, 0]].concat()
        });
        assert!(client.is_reset());
        let failures = failures(&proxy);
        assert!(
            failures.len() == told && failures.iter().all(|(_, why)| why.contains("cannot be reached")),
            "{failures:?}"
        );
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// What a client of TLS says first.
fn hello() -> Vec<u8> {
    let pem = crate::tls::certificate("a.example");
    let config = Arc::new(crate::tls::client_config(&pem.0, None));
    let mut hello = Vec::new();
    let mut connection = rustls::ClientConnection::new(config, "a.example".try_into().unwrap()).unwrap();
    connection.write_tls(&mut hello).unwrap();
    hello
}

/// What comes here goes on there; with the number of connections.
fn counted(server_at: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let address = server(move |client| {
        counted.fetch_add(1, Ordering::Relaxed);
        let server = TcpStream::connect(server_at).unwrap();
        let pairs = [(client.0.try_clone().unwrap(), server.try_clone().unwrap()), (server, client.0)];
        let ways = pairs.map(|(mut from, mut to)| {
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            })
        });
        ways.into_iter().for_each(|way| way.join().unwrap());
    });
    (address, count)
}

#[test]
fn connections_of_http2_to_servers_end_by_the_settings_and_the_client_s_stays() {
    let changes: [fn(&mut Settings); 4] = [
        |_| {},
        |settings| settings.limits.upstream_requests = 2,
        |settings| settings.timeouts.upstream_duration = 1,
        |settings| settings.timeouts.upstream_idle = 40,
    ];
    for (change, connections) in changes.into_iter().zip([1..=1, 2..=2, 2..=4, 4..=4]) {
        let (address, count) = counted(http2::origin().0);
        let proxy = Proxy::http(address, "[{}]");
        proxy.settings(change);
        proxy.block_on(async {
            let mut client = http2::connect(proxy.address).await;
            for _ in 0..4 {
                let answer = client.send_request(http2::request("GET", "http://web/", http2::empty())).await.unwrap();
                assert_eq!(http2::answered(answer).await.0, 200);
                tokio::time::sleep(Duration::from_millis(120)).await;
            }
        });
        assert!(connections.contains(&count.load(Ordering::Relaxed)), "{connections:?}: {count:?}");
    }
}

#[test]
fn a_server_that_accepts_and_never_answers_is_not_waited_for() {
    let address = server(|mut client| drop(client.rest()));
    let changes: [fn(&mut Settings); 2] =
        [|settings| settings.timeouts.request = 200, |settings| settings.timeouts.stream_idle = 200];
    for change in changes {
        let proxy = Proxy::http(address, "[{}]");
        proxy.settings(change);
        let started = Instant::now();
        assert_eq!(proxy.code("GET /"), 504);
        proxy.block_on(async {
            let mut client = http2::connect(proxy.address).await;
            let answer = client.send_request(http2::request("GET", "http://web/", http2::empty())).await.unwrap();
            assert_eq!(answer.status(), 504);
        });
        assert!(started.elapsed() < Duration::from_secs(5));
        let late = (Some(504), "the server did not answer in time".to_owned());
        assert_eq!(failures(&proxy), [late.clone(), late]);
    }
}

/// A server that sends for as long as somebody takes it; with the bytes that were taken.
fn endless() -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let sent = Arc::clone(&count);
    let address = server(move |mut client| {
        client.head();
        client.write("HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n");
        while std::io::Write::write_all(&mut client.0, &[7; 64 << 10]).is_ok() {
            sent.fetch_add(64 << 10, Ordering::Relaxed);
        }
    });
    (address, count)
}

#[test]
fn a_client_that_does_not_read_holds_up_its_server_and_is_given_up() {
    let (address, sent) = endless();
    let proxy = Proxy::http(address, "[{}]");
    proxy.settings(|settings| settings.timeouts.stream_idle = 1_000);
    let mut client = proxy.client();
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the server sends", || sent.load(Ordering::Relaxed) > 0);
    eventually("the client is given up", || proxy.shared.open() == 0);
    // What two pairs of sockets hold by themselves (6 MiB to receive, 4 MiB to send), and one buffer.
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < 24 << 20, "{sent}");
}

#[test]
fn a_stream_that_is_not_read_holds_up_its_server_and_no_other_stream() {
    let (address, _) = http2::origin();
    let (address, _) = counted(address);
    let proxy = Proxy::http(address, "[{}]");
    let sent = proxy.block_on(async {
        let mut client = http2::connect(proxy.address).await;
        let (send, body) = http2::streamed();
        // The server sends back what it gets; nobody reads it.
        let unread = client.send_request(http2::request("POST", "http://web/", body)).await.unwrap();
        let mut sent = 0;
        while tokio::time::timeout(
            Duration::from_millis(500),
            send.send(hyper::body::Frame::data(vec![7; 16 << 10].into())),
        )
        .await
        .is_ok_and(|sent| sent.is_ok())
        {
            sent += 16 << 10;
            assert!(sent < 64 << 20, "nobody holds it up");
        }
        let other = client.send_request(http2::request("GET", "http://web/", http2::empty())).await.unwrap();
        assert_eq!(http2::answered(other).await.0, 200);
        drop(unread);
        sent
    });
    assert!(sent < 4 << 20, "{sent}");
}

#[test]
fn a_head_of_http2_that_does_not_end_is_given_up() {
    let proxy = Proxy::http(http2::origin().0, "[{}]");
    proxy.settings(|settings| settings.timeouts.idle = 300);
    let mut client = proxy.client();
    client.write(http2::PREFACE);
    client.write(http2::frame(1, 1, 1, &http2::get()));
    let started = Instant::now();
    // A byte now and then, each in a frame of its own, does not help.
    while proxy.shared.open() > 0 {
        client.write(http2::frame(9, 0, 1, &[]));
        std::thread::sleep(Duration::from_millis(50));
        assert!(started.elapsed() < Duration::from_secs(5), "it is waited for");
    }
    // Half a frame.
    let mut client = proxy.client();
    client.write(http2::PREFACE);
    client.write(&http2::frame(1, 5, 1, &http2::get())[..12]);
    assert!(http2::is_ended(&mut client));
}
