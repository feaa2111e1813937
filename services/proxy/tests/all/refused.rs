//! Is what nothing is known of, what two readers may read differently, and what is no HTTP refused, before a server sees it?

use proxy_api::*;

use crate::harness::*;

/// Refuses this with a code, and the server sees nothing.
#[track_caller]
fn check(bytes: impl AsRef<[u8]>, wanted: u16) {
    let origin = Origin::new();
    let proxy = Proxy::http(origin.address, "[{}]");
    let answer = proxy.send(&bytes);
    assert_eq!(code(&answer), wanted, "{}", String::from_utf8_lossy(bytes.as_ref()));
    assert_eq!(origin.seen(), [""; 0]);
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[test]
fn a59_requests_that_smuggle_are_refused() {
    let post = |lines: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n")
    };
    check(post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"), 400);
    check(post("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n"), 400);
    check(post("Content-Length: 6\r\nContent-Length: 7\r\n"), 400);
    check(post("Content-Length: 6\r\nContent-Length: 6\r\n"), 400);
    check(post("Transfer-Encoding: xchunked\r\n"), 501);
    check(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n"), 501);
    check(post("Transfer-Encoding: \x0bchunked\r\n"), 400);
    check(post("Transfer-Encoding : chunked\r\n"), 400);
    check(post("X: y\r\n Transfer-Encoding: chunked\r\n"), 400);
    check(post("X: y\nTransfer-Encoding: chunked\r\n"), 400);
    check(post("Connection: close, content-length\r\nContent-Length: 6\r\n"), 400);
    check("GET / HTTP/1.1\nHost: a\n\n", 400);
    check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501);
}

#[test]
fn a59_chunks_that_smuggle_end_the_connection_and_never_reach_the_server_as_a_request() {
    for chunks in [
        "5\nhello\r\n0\r\n\r\n",
        "5;\n\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloGET /admin HTTP/1.1\r\n\r\n",
    ] {
        let origin = Origin::new();
        let proxy = Proxy::http(origin.address, "[{}]");
        proxy.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(!origin.seen().iter().any(|head| head.starts_with("GET")), "{chunks:?}");
    }
}

#[test]
fn a57_hosts_that_contradict_are_refused() {
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    ] {
        check(head, 400);
    }
}

#[test]
fn a57_a_host_is_judged_as_the_server_gets_it() {
    let origin = Origin::new();
    let proxy = Proxy::http(origin.address, r#"[{"host":"good\\.example"}]"#);
    let get = |target: &str, host: &str| {
        code(&proxy.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")))
    };
    assert_eq!((get("/", "good.example"), get("http://good.example/", "good.example")), (200, 200));
    for host in ["GOOD.example", "good.example.", "good.example:80", "goodxexample", "bad.example", "good.example.bad"]
    {
        assert_eq!(get("/", host), 403, "{host}");
        assert_eq!(get(&format!("http://{host}/"), host), 403, "{host}");
    }
    assert!(origin.seen().iter().all(|head| head.contains("Host: good.example\r\n")));
}

#[test]
fn a56_paths_that_mean_something_else_do_not_pass() {
    let origin = Origin::new();
    let proxy = Proxy::http(origin.address, r#"[{"path":"/public(/.*)?"}]"#);
    for path in ["/public/a//b", "/public/a/../b", "/public/%41", "/public/a;b", "/public/?x=/../admin"] {
        assert_eq!(proxy.code(&format!("GET {path}")), 200, "{path}");
        assert!(origin.seen().concat().starts_with(&format!("GET {path} ")), "it goes on as it came");
    }
    for path in [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/%2e%2E%2fadmin",
        "/public/..;/admin",
        "/public/..%5cadmin",
        "/public/..%252fadmin",
        "/public//../../admin",
        "//public/a",
        "/%70ublic/a",
        "/Public/a",
        "/./public/a",
    ] {
        assert_eq!(proxy.code(&format!("GET {path}")), 403, "{path}");
    }
    assert_eq!(origin.seen(), [""; 0]);
    for path in ["/public/#/../admin", "/public/\0", "/public/\x7f"] {
        check(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    }
    // Who sets http-normalize-path to false takes the path as it is written.
    proxy.settings(|settings| settings.judge_all_meanings = false);
    assert_eq!(proxy.code("GET /public/../admin"), 200);
}

#[test]
fn a58_all_values_of_a_header_count_and_nul_is_refused() {
    let origin = Origin::new();
    let proxy = Proxy::http(origin.address, r#"[{"headers":["X: a"]}]"#);
    assert_eq!(proxy.code("GET /\nX: a"), 200);
    assert_eq!(proxy.code("GET /\nX: a\nX: b"), 403);
    assert_eq!(proxy.code("GET /\nx: b\nX: a"), 403);
    assert_eq!(proxy.code("GET /\nX: a\0b"), 400);
    assert_eq!(proxy.code("GET /\nX\0: a"), 400);
}

#[test]
fn a62_what_is_no_http_gets_no_further() {
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"SSH-2.0-OpenSSH_9\r\n",
        b"\0\0\0\x10",
        b"*1\r\n$4\r\nPING\r\n",
        b"EHLO x\r\n\r\n",
        // HTTP/0.9
        b"GET /\r\n\r\n",
    ] {
        let origin = Origin::new();
        let proxy = Proxy::http(origin.address, "[{}]");
        assert_eq!(code(&proxy.send(bytes)), 400, "{bytes:?}");
        assert_eq!(origin.seen(), [""; 0]);
    }
}

#[test]
fn what_nothing_is_known_of_is_refused() {
    let origin = Origin::new();
    let proxy = Proxy::without_rules(origin.address);
    assert!(proxy.client().is_reset(), "no rules yet");
    proxy.set(vec![http_rules(2, "[{}]")]);
    assert!(proxy.client().is_reset(), "no such rule set");
    proxy.set(vec![http_rules(1, "[{}]")]);
    assert_eq!(proxy.code("GET /"), 200);
    *proxy.known.0.lock().unwrap() = None;
    assert!(proxy.client().is_reset(), "the datapath does not know it");
    *proxy.known.0.lock().unwrap() = Some(Facts { direction: Direction::Egress, ..FACTS });
    assert!(proxy.client().is_reset(), "it is of the other direction");
    *proxy.known.0.lock().unwrap() = Some(FACTS);
    proxy.set(vec![RuleSet::open(1, Parser::Dns)]);
    assert!(proxy.client().is_reset(), "questions have listeners of their own");
    proxy.set(vec![RuleSet { broken: Some("no secret".into()), ..http_rules(1, "[{}]") }]);
    assert!(proxy.client().is_reset(), "the rules cannot be met");
}

#[test]
fn a05_an_empty_list_of_rules_lets_nothing_pass() {
    let proxy = Proxy::new(
        Origin::new().address,
        vec![RuleSet { http: Some(vec![].into()), ..RuleSet::open(1, Parser::Http) }],
    );
    assert_eq!(proxy.code("GET /"), 403);
    proxy.set(vec![RuleSet::open(1, Parser::Http)]);
    assert_eq!(proxy.code("GET /"), 200);
}

#[test]
fn a61_a_rule_with_a_bad_pattern_allows_nothing_and_the_others_go_on() {
    let proxy = Proxy::http(Origin::new().address, r#"[{"host":"a["},{"path":"/ok"}]"#);
    assert_eq!((proxy.code("GET /ok"), proxy.code("GET /"), proxy.code("GET a[")), (200, 403, 400));
}

#[test]
fn connections_of_which_nothing_is_asked_pass_bytes() {
    let address = server(|mut client| {
        client.write("220 hello\r\n");
        assert_eq!(client.rest(), b"\0\x01QUIT");
        client.write("bye");
    });
    let proxy = Proxy::new(address, vec![RuleSet::open(1, Parser::Tcp)]);
    let mut client = proxy.client();
    assert_eq!(client.read(11), b"220 hello\r\n");
    client.write(b"\0\x01QUIT");
    client.end();
    assert_eq!(client.rest(), b"bye");
}
