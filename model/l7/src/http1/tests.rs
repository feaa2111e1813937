//! Is every head that two readers may understand differently refused, and every other one read rightly?
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// Method, path, authority and length of a request; or why not.
fn read(text: &[u8]) -> Result<(String, String, String, Length), Malformed> {
    let limits = Limits::default();
    let Some(end) = Scan::default().find(text, &limits)? else { return Err(Malformed::FirstLine) };
    let mut room = Room::default();
    let request = Request::read(&text[..end], &mut room, &limits)?;
    let Target { path, authority } = request.target;
    Ok((request.method.into(), path.into(), authority.into(), request.length))
}

#[track_caller]
fn refused(text: &[u8], why: Malformed) {
    assert_eq!(read(text), Err(why), "{}", String::from_utf8_lossy(text));
}

/// A GET of this target, with Host.
fn target(target: &str) -> Result<(String, String), Malformed> {
    read(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
        .map(|(_, path, authority, _)| (path, authority))
}

/// A POST with these header lines.
fn with(lines: &str) -> Result<Length, Malformed> {
    read(format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes()).map(|found| found.3)
}

#[test]
fn requests_are_read() {
    let read = read(b"PUT /a?b=c HTTP/1.1\r\nHost: web:80\r\nContent-Length: 12\r\n\r\nrest").unwrap();
    assert_eq!(read, ("PUT".into(), "/a?b=c".into(), "web:80".into(), Length::Bytes(12)));
    assert_eq!(with("Transfer-Encoding: Chunked\r\n"), Ok(Length::Chunked));
    assert_eq!(target("http://a/x?y"), Ok(("/x?y".into(), "a".into())));
    assert_eq!(target("HTTP://a"), Ok(("/".into(), "a".into())));
}

#[test]
fn a59_lengths_that_readers_may_differ_in_are_refused() {
    for lines in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\ncontent-length: 2\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 1 1\r\n",
        "Content-Length: 99999999999999999999\r\n",
    ] {
        assert_eq!(with(lines), Err(Malformed::Length), "{lines}");
    }
    for lines in [
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
    ] {
        assert!(with(lines).is_err(), "{lines}");
    }
    refused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed::TransferCoding);
    for lines in
        ["Content-Length : 1\r\n", " Content-Length: 1\r\n", "X: a\r\n Content-Length: 1\r\n", "X: a\r\n\tb\r\n"]
    {
        assert_eq!(with(lines), Err(Malformed::Header), "{lines}");
    }
    for lines in ["Connection: close, Content-Length\r\n", "Connection: transfer-encoding\r\n", "Connection: HOST\r\n"]
    {
        assert_eq!(with(lines), Err(Malformed::Connection), "{lines}");
    }
}

#[test]
fn a59_lines_end_in_cr_lf_and_nothing_else() {
    refused(b"GET / HTTP/1.1\nHost: a\n\n", Malformed::BareLineFeed);
    refused(b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", Malformed::BareLineFeed);
    refused(b"GET / HTTP/1.1\r\nHost: a\r\n\n", Malformed::BareLineFeed);
    refused(b"\n", Malformed::BareLineFeed);
    assert!(read(b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n").is_err());
    assert!(read(b"GET / HTTP/1.1\rHost: a\r\n\r\n").is_err());
    assert!(read(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n").is_err());
    assert!(read(b"GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n").is_err());
    assert!(read(b"GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n").is_err());
    assert!(read(b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n").is_err());
}

#[test]
fn a57_hosts_that_contradict_or_are_none_are_refused() {
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://A/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a./ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n",
        "CONNECT b:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        refused(head.as_bytes(), Malformed::Host);
    }
    for url in [
        "http://u@a/",
        "http://u:p@a/",
        "http:///x",
        "https://a/",
        "ftp://a/",
        "http:a",
        "a",
        "*",
        "?x",
        "http://a#/",
        "",
    ] {
        assert!(target(url).is_err(), "{url}");
    }
    // What is neither case is the rule's to judge, as it came.
    for host in ["A", "a.", "a:80", "[::1]:80", ""] {
        let found = read(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(found.2, host);
    }
    assert_eq!(read(b"GET / HTTP/1.0\r\n\r\n").unwrap().2, "");
    refused(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Malformed::Host);
}

#[test]
fn a56_targets_keep_their_form_and_bad_characters_are_refused() {
    for path in ["/a//b", "/a/../b", "/%2e%2e/", "/a%2Fb", "/a;b=c", "/a\\b", "/a?b?c", "/%00"] {
        assert_eq!(target(path), Ok((path.into(), "a".into())));
    }
    for path in ["/a#b", "/#", "/a\0b", "/a\x7fb", "/a\tb", "/a b", "/a\x01"] {
        assert!(target(path).is_err(), "{path:?}");
    }
}

#[test]
fn a62_what_is_no_http_is_refused_with_its_first_bytes() {
    for bytes in [&b"\x16\x03\x01"[..], b"\0", b"SSH-2.0-x\r\n", b"{\"a\":1}", b" GET / HTTP/1.1", b"\xffSMB", b":"] {
        assert_eq!(Request::check_start(bytes), Err(Malformed::NotHttp), "{bytes:?}");
    }
    assert_eq!(Request::check_start(&[b'A'; 40]), Err(Malformed::NotHttp));
    for bytes in [&b""[..], b"G", b"GET", b"GET ", b"M-SEARCH * HTTP/1.1"] {
        assert_eq!(Request::check_start(bytes), Ok(()));
    }
    refused(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", Malformed::Version);
    refused(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Malformed::Version);
    refused(b"GET /\r\n\r\n", Malformed::FirstLine);
    assert!(read(b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n").is_err());
    assert!(read(b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n").is_err());
}

#[test]
fn heads_have_bounds() {
    let limits = Limits { bytes: 200, headers: 3 };
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(200));
    assert_eq!(Scan::default().find(long.as_bytes(), &limits), Err(Malformed::TooLong));
    let many = b"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n";
    assert_eq!(Request::read(many, &mut Room::default(), &limits).unwrap_err(), Malformed::TooManyHeaders);
    let most = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: 1\r\n".repeat(300));
    assert_eq!(read(most.as_bytes()), Err(Malformed::TooManyHeaders));
}

#[test]
fn upgrades_are_told_apart() {
    let kind = |lines: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        Request::read(text.as_bytes(), &mut Room::default(), &Limits::default()).unwrap().upgrade
    };
    assert_eq!(kind("Connection: Upgrade\r\nUpgrade: WebSocket\r\n"), Some(Upgrade::WebSocket));
    assert_eq!(
        kind("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"),
        Some(Upgrade::H2c)
    );
    assert_eq!(kind("Connection: upgrade\r\nUpgrade: websocket, h2c\r\n"), Some(Upgrade::Other));
    assert_eq!(kind("Connection: upgrade\r\nUpgrade: TLS/1.0\r\n"), Some(Upgrade::Other));
    assert_eq!(kind("Upgrade: websocket\r\n"), Some(Upgrade::Other));
    assert_eq!(kind("Connection: upgrade\r\n"), None);
}

#[test]
fn heads_are_rewritten_without_touching_other_lines() {
    let text = b"GET /x HTTP/1.1\r\nhOST:a\r\nX-Two:  b \r\nx-one: 1\r\nX-Two: c\r\n\r\n";
    let mut room = Room::default();
    let head = Request::read(text, &mut room, &Limits::default()).unwrap().head;
    let new = head.rewritten(|name| !name.eq_ignore_ascii_case("x-two"), &[("X-New", b"v")]);
    assert_eq!(new, b"GET /x HTTP/1.1\r\nhOST:a\r\nx-one: 1\r\nX-New: v\r\n\r\n");
    assert_eq!(head.rewritten(|_| true, &[]), text);
}

fn answer(text: &str, method: &str) -> Result<(u16, Length, bool), Malformed> {
    let mut room = Room::default();
    let answer = Answer::read(text.as_bytes(), &mut room, &Limits::default(), method)?;
    Ok((answer.code, answer.length, answer.keep_alive))
}

#[test]
fn answers_end_where_rfc_9112_says() {
    let none = Length::Bytes(0);
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(answer(length, "GET"), Ok((200, Length::Bytes(5), true)));
    assert_eq!(answer(length, "HEAD"), Ok((200, none, true)));
    assert_eq!(answer(length, "CONNECT"), Ok((200, none, true)));
    assert_eq!(answer("HTTP/1.1 204 \r\n\r\n", "GET"), Ok((204, none, true)));
    assert_eq!(answer("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "GET"), Ok((304, none, true)));
    assert_eq!(answer("HTTP/1.1 100 Continue\r\n\r\n", "PUT"), Ok((100, none, true)));
    assert_eq!(answer("HTTP/1.1 200 OK\r\n\r\n", "GET"), Ok((200, Length::UntilClose, false)));
    assert_eq!(answer("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", "GET"), Ok((200, Length::Bytes(1), false)));
    assert_eq!(
        answer("HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", "GET"),
        Ok((404, Length::Chunked, false))
    );
}

#[test]
fn a59_ambiguous_answers_are_refused() {
    for (lines, why) in [
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Malformed::Length),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", Malformed::Length),
        ("Transfer-Encoding: gzip\r\n", Malformed::TransferCoding),
        ("X : y\r\n", Malformed::Header),
        ("X: y\r\n z\r\n", Malformed::Header),
    ] {
        assert_eq!(answer(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n"), "GET"), Err(why), "{lines}");
    }
    assert!(answer("HTTP/1.1 20 OK\r\n\r\n", "GET").is_err());
    assert!(answer("ICY 200 OK\r\n\r\n", "GET").is_err());
}

/// How many of these bytes belong to the body, read in pieces of this size.
fn body(length: Length, bytes: &[u8], piece: usize) -> Result<(usize, bool), Malformed> {
    let mut framing = Framing::new(length);
    let mut taken = 0;
    for part in bytes.chunks(piece) {
        let belongs = framing.advance(part)?;
        taken += belongs;
        if belongs < part.len() {
            break;
        }
    }
    Ok((taken, framing.is_done()))
}

#[test]
fn bodies_end_where_they_end() {
    let chunks = b"5\r\nhello\r\nA;name=\"v\"\r\n0123456789\r\n0\r\nX-Trailer: y\r\n\r\n";
    let all = [&chunks[..], b"GET /next"].concat();
    for piece in [1, 2, 3, 7, 1_000] {
        assert_eq!(body(Length::Chunked, &all, piece), Ok((chunks.len(), true)));
        assert_eq!(body(Length::Chunked, &chunks[..chunks.len() - 1], piece), Ok((chunks.len() - 1, false)));
        assert_eq!(body(Length::Bytes(4), b"abcdef", piece), Ok((4, true)));
        assert_eq!(body(Length::UntilClose, b"abcdef", piece), Ok((6, false)));
        assert_eq!(body(Length::Bytes(0), b"abcdef", piece), Ok((0, true)));
    }
}

#[test]
fn a59_chunks_that_readers_may_differ_in_are_refused() {
    for chunks in [
        "x\r\n",
        "\r\n",
        " 5\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        "5\nhello\r\n",
        "5\r\nhello\n",
        "5\r\nhelloX\r\n",
        "5\r\nhello\r\r\n",
        "5;a\nb\r\nhello\r\n",
        "5;\x01\r\n",
        "5\rX",
        "1000000000000000\r\n",
        "-1\r\n",
        "0\r\n\n",
        "0\r\nX: y\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\n\rX",
        "0\r\nX: \0\r\n\r\n",
        ";\r\n",
    ] {
        for piece in [1, 1_000] {
            assert!(body(Length::Chunked, chunks.as_bytes(), piece).is_err(), "{chunks:?}");
        }
    }
    let endless = format!("1;{}", "x".repeat(20_000));
    assert_eq!(body(Length::Chunked, endless.as_bytes(), 500), Err(Malformed::TooLong));
    let trailers = format!("0\r\n{}", "x: y\r\n".repeat(5_000));
    assert_eq!(body(Length::Chunked, trailers.as_bytes(), 500), Err(Malformed::TooLong));
}

proptest! {
    #[test]
    fn no_bytes_stop_the_gate(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
        let _ = body(Length::Chunked, &bytes, 3);
        let text = [b"HTTP/1.1 200 OK\r\n".as_slice(), &bytes, b"\r\n\r\n"].concat();
        let _ = Answer::read(&text, &mut Room::default(), &Limits::default(), "GET");
    }

    #[test]
    fn what_passes_the_gate_has_one_reading(
        lines in proptest::collection::vec(proptest::sample::select(&[
            "Host: a", "Host: b", "host:a", "Content-Length: 3", "Content-Length: 03", "Content-Length:3", "Transfer-Encoding: chunked",
            "Transfer-Encoding : chunked", " folded", "X: y\n", "X: \r", "Connection: close", "Content-Length: 3,3", "\0", "X",
        ][..]), 0..5),
        target in proptest::sample::select(&["/", "http://a/", "http://b/x", "*", "/a b", "/#", "//", "a:1"][..]),
    ) {
        let text = format!("POST {target} HTTP/1.1\r\n{}\r\n", lines.iter().map(|line| format!("{line}\r\n")).collect::<String>());
        if let Ok((_, _, authority, length)) = read(text.as_bytes()) {
            let count = |name: &str| lines.iter().filter(|line| line.to_ascii_lowercase().starts_with(name)).count();
            prop_assert_eq!(count("host"), 1);
            prop_assert!(count("content-length") + count("transfer-encoding") <= 1);
            prop_assert_eq!(length == Length::Chunked, count("transfer-encoding") == 1);
            prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']));
            let host = format!("host:{authority}");
            prop_assert!(lines.iter().any(|line| line.to_ascii_lowercase().replace(' ', "") == host));
        }
    }

    #[test]
    fn where_pieces_are_cut_changes_nothing(cuts in proptest::collection::vec(1usize..9, 1..40)) {
        let text = b"GET /path HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\nGET /next";
        let limits = Limits::default();
        let (mut scan, mut end, mut found) = (Scan::default(), 0, None);
        for cut in cuts.iter().cycle() {
            end = (end + cut).min(text.len());
            found = scan.find(&text[..end], &limits).unwrap();
            if found.is_some() || end == text.len() {
                break;
            }
        }
        prop_assert_eq!(found, Some(37));
    }
}
