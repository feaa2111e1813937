//! Whatever bytes a client sends: does a server only see requests that rules allow?

use proptest::prelude::*;

use crate::harness::*;

/// Parts of requests, good and bad.
const PARTS: &[&str] = &[
    "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 37\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "25\r\n",
    "0\r\n\r\n",
    "0;\n\r\n\r\n",
    "\r\n",
    "\n",
    " ",
    "\0",
    "GET http://a/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn a59_a_server_that_reads_strictly_sees_only_what_is_allowed(
        parts in proptest::collection::vec(proptest::sample::select(PARTS), 1..7),
        noise in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
    ) {
        let mut bytes = parts.concat().into_bytes();
        if let Some((place, byte)) = noise {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = std::sync::Arc::clone(&seen);
        let address = server(move |mut client| {
            let all = client.rest();
            log.lock().unwrap().push(all);
        });
        let proxy = Proxy::http(address, r#"[{"method":"GET|POST","path":"/a"}]"#);
        proxy.settings(|settings| {
            settings.timeouts.head = 50;
            settings.timeouts.idle = 50;
            settings.timeouts.request = 50;
            settings.timeouts.stream_idle = 50;
        });
        let mut client = proxy.client();
        client.write(&bytes);
        client.end();
        client.rest();
        eventually("the connection ends", || proxy.shared.open() == 0);
        std::thread::sleep(std::time::Duration::from_millis(2));
        for all in seen.lock().unwrap().iter() {
            prop_assert!(only_allowed(all), "{:?} of {:?}", String::from_utf8_lossy(all), String::from_utf8_lossy(&bytes));
        }
    }
}

/// Reads what a server got: heads for /a and bodies as their headers say; nothing else.
fn only_allowed(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return true };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let target = head.split(' ').nth(1).unwrap_or_default();
        if !["/a", "http://a/a"].contains(&target) || !(head.starts_with("get ") || head.starts_with("post ")) {
            return false;
        }
        bytes = &bytes[end + 4..];
        let length =
            head.split("content-length: ").nth(1).map(|rest| rest.split("\r\n").next().unwrap().parse::<usize>());
        match length {
            Some(length) => bytes = bytes.get(length.unwrap()..).unwrap_or_default(),
            // The body is all that follows, as far as this server is concerned: only one exchange passes at a time.
            None if head.contains("transfer-encoding") => return true,
            None => {}
        }
    }
    true
}
