//! Is everything told that was said, and nothing that may not be?

use proxy_api::*;

use crate::harness::*;

/// `verdict kind method url code info` of each record.
fn told(records: &[Record]) -> Vec<String> {
    let line = |record: &Record| {
        let Application::Http(http) = &record.application else { panic!("{record:?}") };
        let code = http.code.map_or(String::new(), |code| format!(" {code}"));
        let info = if record.info.is_empty() { String::new() } else { format!(" ({})", record.info) };
        format!("{:?} {:?} {} {} {}{code}{info}", record.verdict, record.kind, http.protocol, http.method, http.url)
    };
    records.iter().map(line).collect()
}

#[test]
fn requests_and_answers_are_recorded() {
    let proxy = Proxy::http(Origin::new().address, r#"[{"path":"/ok.*"}]"#);
    let mut client = proxy.client();
    client.write("GET /ok?q=1 HTTP/1.1\r\nHost: web:80\r\nX-A: b\r\n\r\nPUT /no HTTP/1.1\r\nHost: web\r\n\r\n\x01");
    client.rest();
    let records = proxy.records();
    assert_eq!(
        told(&records),
        [
            "Forwarded Request HTTP/1.1 GET http://web:80/ok?q=1",
            "Forwarded Response HTTP/1.1 GET http://web:80/ok?q=1 200",
            "Denied Request HTTP/1.1 PUT http://web/no (no rule allows it)",
            "Forwarded Response HTTP/1.1 PUT http://web/no 403",
            "Error Request HTTP/1.1   (not HTTP)",
        ]
    );
    let first = &records[0];
    assert_eq!((first.endpoint, first.direction, first.rule_set), (7, Direction::Ingress, 1));
    assert_eq!((first.source.identity, first.destination.identity), (1_001, 1_002));
    assert_eq!((first.source.address, first.destination.address), (client.0.local_addr().unwrap(), proxy.address));
    let Application::Http(request) = &first.application else { panic!() };
    assert_eq!(request.headers, [("Host".into(), "web:80".into()), ("X-A".into(), "b".into())]);
    let Application::Http(answer) = &records[1].application else { panic!() };
    assert!(answer.latency.unwrap() > 0 && answer.headers == [("Content-Length".to_owned(), "2".to_owned())]);
    assert!(first.time > 1_600_000_000_000_000_000 && records.windows(2).all(|pair| pair[0].time <= pair[1].time));
}

#[test]
fn failures_are_recorded() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::http(closed, "[{}]");
    proxy.code("GET /");
    assert_eq!(
        told(&proxy.records()),
        [
            "Forwarded Request HTTP/1.1 GET http://web/",
            "Error Response HTTP/1.1 GET http://web/ 503 (the server cannot be reached)"
        ]
    );
}

#[test]
fn a49_records_are_redacted() {
    let proxy = Proxy::http(Origin::new().address, "[{}]");
    proxy.settings(|settings| {
        settings.redaction = Redaction {
            enabled: true,
            url_query: true,
            user_info: true,
            headers_allow: vec!["x-ok".into()],
            headers_deny: vec![],
        };
    });
    proxy.code("GET /a?token=s3cret\nAuthorization: Bearer s3cret\nX-OK: fine\nCookie: s3cret");
    let records = proxy.records();
    assert!(!format!("{records:?}").contains("s3cret"));
    let Application::Http(http) = &records[0].application else { panic!() };
    assert_eq!(http.url, "http://web/a");
    assert!(http.headers.contains(&("X-OK".into(), "fine".into())));
    assert!(http.headers.contains(&("Cookie".into(), "HUBBLE_REDACTED".into())));
}

#[test]
fn a49_no_way_of_a_request_s_end_tells_what_is_redacted() {
    let answer =
        "HTTP/1.1 302 Found\r\nSet-Cookie: s3cret\r\nLocation: http://u:s3cret@a/?s3cret\r\nContent-Length: 0\r\n\r\n";
    let servers = [Origin::answering(answer).address, server(drop), server(|mut client| client.write("s3cret"))];
    for address in servers {
        let rules = r#"[{"path":"/a.*","headerMatches":[{"name":"X-A","value":"v","mismatch":"DELETE"}]}]"#;
        let proxy = Proxy::http(address, rules);
        proxy.settings(|settings| {
            settings.redaction = Redaction { enabled: true, url_query: true, user_info: true, ..Redaction::default() };
        });
        let secret = "X-A: s3cret\r\nAuthorization: s3cret\r\nConnection: close\r\n\r\n";
        for start in [
            "GET /a?s3cret HTTP/1.1\r\nHost: a\r\n",
            "GET /denied?s3cret HTTP/1.1\r\nHost: a\r\n",
            "GET http://a/a?s3cret HTTP/1.1\r\nHost: a\r\n",
            "GET http://u:s3cret@a/a HTTP/1.1\r\nHost: u:s3cret@a\r\n",
            "GET /a?s3cret HTTP/1.1\r\nHost: a\r\ns3cret\r\n",
            "s3cret\r\n",
        ] {
            proxy.send(format!("{start}{secret}"));
        }
        proxy.block_on(async {
            let mut client = crate::http2::connect(proxy.address).await;
            for url in ["http://a/a?s3cret", "http://a/denied?s3cret"] {
                let mut request = crate::http2::request("GET", url, crate::http2::empty());
                for name in ["x-a", "authorization"] {
                    request.headers_mut().insert(name, "s3cret".parse().unwrap());
                }
                let _ = client.send_request(request).await;
            }
        });
        let records = proxy.records();
        assert!(records.len() >= 10, "{records:?}");
        assert!(!format!("{records:?}").contains("s3cret"), "{records:#?}");
    }
}

#[test]
fn a43_a49_values_of_secrets_are_in_no_record() {
    let rules = r#"[{"headerMatches":[{"name":"X-T","value":"hunter2","secret":{"name":"s"},"mismatch":"REPLACE"}]}]"#;
    let origin = Origin::new();
    let proxy = Proxy::http(origin.address, rules);
    proxy.code("GET /\nX-T: wrong");
    assert!(origin.seen().concat().contains("x-t: hunter2"));
    let records = proxy.records();
    assert!(!format!("{records:?} {:?}", proxy.shared.rules.load()).contains("hunter2"), "{records:?}");
    let Application::Http(http) = &records[0].application else { panic!() };
    assert_eq!(http.missing, [("x-t".to_owned(), "[redacted]".to_owned())]);
}

#[test]
fn nothing_is_recorded_if_nothing_is_to_be() {
    let proxy = Proxy::http(Origin::new().address, "[{}]");
    proxy.settings(|settings| settings.records = false);
    assert_eq!(proxy.code("GET /"), 200);
    assert_eq!(proxy.records(), []);
    assert_eq!(proxy.shared.counters.requests_forwarded.get(), 1);
}
