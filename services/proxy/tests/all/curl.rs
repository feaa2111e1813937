//! Does the stock curl notice nothing of the proxy, but for what rules deny?

use std::net::SocketAddr;
use std::process::Command;

use crate::harness::*;

/// A server that tells what it got: method, path, length of the body. It knows chunks, expectations, upgrades, tunnels.
fn origin() -> SocketAddr {
    server(|mut client| {
        loop {
            let head = client.head().to_ascii_lowercase().replace(": ", ":");
            let Some(line) = head.lines().next().map(str::to_owned) else { return };
            if head.contains("expect:100-continue") {
                client.write("HTTP/1.1 100 Continue\r\n\r\n");
            }
            if head.contains("upgrade:websocket") {
                client.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
                return client.write("\x01frames");
            }
            if line.starts_with("connect ") {
                client.write("HTTP/1.1 200 OK\r\n\r\n");
                continue;
            }
            let length = head.split("content-length:").nth(1).map(|rest| rest.split("\r\n").next().unwrap().parse());
            let taken = match length {
                Some(length) => client.read(length.unwrap()).len(),
                None if head.contains("transfer-encoding:chunked") => chunks(&mut client),
                None => 0,
            };
            let body = format!("{} {taken}", line.trim_end_matches(" http/1.1"));
            let sent = if line.starts_with("head ") { "" } else { body.as_str() };
            client.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{sent}", body.len()));
        }
    })
}

/// Bytes of a chunked body.
fn chunks(client: &mut Peer) -> usize {
    let mut taken = 0;
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(client.read(1));
        }
        let size = usize::from_str_radix(String::from_utf8(line).unwrap().trim(), 16).unwrap();
        taken += size;
        client.read(size + 2);
        if size == 0 {
            return taken;
        }
    }
}

/// What curl prints; `URL` in its words is the proxy's.
fn curl(proxy: &Proxy, words: &str) -> String {
    let words = words.replace("URL", &format!("http://{}", proxy.address));
    let mut command = Command::new("curl");
    command.args(["-s", "--max-time", "20"]).args(words.split(' ').filter(|word| !word.is_empty()));
    String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
}

#[test]
fn requests_uploads_and_heads_pass_as_they_do_without_a_proxy() {
    let proxy = Proxy::http(origin(), r#"[{"path":"/ok.*"}]"#);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, vec![b'x'; 3_000_000]).unwrap();
    let file = file.display();
    for (words, wanted) in [
        ("URL/ok?a=1".to_owned(), "get /ok?a=1 0"),
        ("--http1.0 URL/ok".into(), "get /ok http/1.0 0"),
        ("-X DELETE URL/ok".into(), "delete /ok 0"),
        ("-d abc URL/ok".into(), "post /ok 3"),
        // curl asks before it sends so much.
        (format!("-T {file} URL/ok"), "put /ok 3000000"),
        (format!("-T {file} -H Expect: URL/ok"), "put /ok 3000000"),
        (format!("-T {file} -H Transfer-Encoding:chunked URL/ok"), "put /ok 3000000"),
        (format!("-F f=@{file} -o /dev/null -w %{{http_code}} URL/ok"), "200"),
        ("URL/ok URL/ok1 URL/ok2".into(), "get /ok 0get /ok1 0get /ok2 0"),
        ("-w %{http_code} URL/no".into(), "Access denied\r\n403"),
        (format!("-w %{{http_code}} -T {file} URL/no"), "Access denied\r\n403"),
        ("--path-as-is URL/ok/../no".into(), "Access denied\r\n"),
    ] {
        assert_eq!(curl(&proxy, &words), wanted, "curl {words}");
    }
    for (words, length) in [("-I URL/ok", 10), ("-I URL/no", 15)] {
        let head = curl(&proxy, words).to_ascii_lowercase();
        assert!(head.contains(&format!("content-length: {length}\r\n")) && head.ends_with("\r\n\r\n"), "{head:?}");
    }
}

#[test]
fn upgrades_and_tunnels_open_where_rules_allow() {
    let proxy = Proxy::http(origin(), r#"[{"method":"CONNECT","host":"good:80"},{"path":"/ws"}]"#);
    let websocket = "-N --http1.1 -i -H Connection:Upgrade -H Upgrade:websocket -H Sec-WebSocket-Version:13 -H Sec-WebSocket-Key:eA==";
    let opened = curl(&proxy, &format!("{websocket} URL/ws"));
    assert!(opened.starts_with("HTTP/1.1 101 ") && opened.ends_with("\r\n\r\n\x01frames"), "{opened:?}");
    assert!(curl(&proxy, &format!("{websocket} URL/other")).starts_with("HTTP/1.1 403 "));
    // Within the tunnel nothing is judged.
    assert_eq!(curl(&proxy, "-p -x URL http://good/inside"), "get /inside 0");
    assert_eq!(curl(&proxy, "-p -x URL -o /dev/null -w %{http_connect} http://bad/inside"), "403");
}

#[test]
fn http2_with_prior_knowledge_passes_in_every_shape() {
    let (address, seen) = crate::http2::origin();
    let proxy = Proxy::http(address, r#"[{"path":"/ok.*"}]"#);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, vec![b'x'; 3_000_000]).unwrap();
    let file = file.display();
    let ask = |words: &str| curl(&proxy, &format!("--http2-prior-knowledge {words}"));
    assert_eq!(ask("-d abc URL/ok"), "abc");
    assert_eq!(ask(&format!("-T {file} -o /dev/null -w %{{http_version}}:%{{size_download}} URL/ok")), "2:3000000");
    assert_eq!(ask("-w %{http_code} URL/no"), "Access denied\r\n403");
    let head = ask("-I URL/ok");
    assert!(head.starts_with("HTTP/2 200") && head.contains("content-length: 7\r\n"), "{head:?}");
    assert!(ask("-I URL/no").starts_with("HTTP/2 403"));
    assert!(seen.lock().unwrap().iter().all(|line| line.contains(" /ok")));
}
