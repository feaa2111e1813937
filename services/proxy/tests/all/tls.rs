//! Are server names asked for, and is HTTP inside TLS judged where certificates are given?

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use proxy_api::*;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::harness::*;

/// A certificate for this name, signed by itself, and its key; as PEM.
pub fn certificate(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What clients and servers trust that trust this certificate.
fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    roots
}

/// A TLS server with this certificate; with `trusted`, for clients that have this one.
pub fn server_config(pem: &(String, String), trusted: Option<&str>) -> ServerConfig {
    let certificates = vec![CertificateDer::from_pem_slice(pem.0.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pem.1.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = match trusted {
        None => builder.with_no_client_auth(),
        Some(trusted) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(trusted)), provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    builder.with_single_cert(certificates, key).unwrap()
}

/// A TLS client that trusts this certificate; with `own`, one that shows this one.
pub fn client_config(trusted: &str, own: Option<&(String, String)>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots(trusted));
    match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificates = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            builder.with_client_auth_cert(certificates, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    }
}

/// A client's connection to a server of this name, before the first byte.
pub fn connect(address: SocketAddr, config: ClientConfig, name: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, Peer::new(TcpStream::connect(address).unwrap()).0)
}

/// A TLS server that answers each request by what it was asked for.
fn tls_server(pem: &(String, String), protocols: &'static [&'static [u8]]) -> SocketAddr {
    let mut config = server_config(pem, None);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let config = Arc::new(config);
    server(move |client| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, client.0);
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => request.push(byte[0]),
                _ => return,
            }
        }
        let line = String::from_utf8_lossy(&request).lines().next().unwrap().to_owned();
        let name = stream.conn.server_name().unwrap_or("none").to_owned();
        let body = format!("{name}: {line}");
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        stream.conn.send_close_notify();
        let _ = stream.flush();
    })
}

/// What a client that trusts this certificate gets for a request to this name.
fn get(address: SocketAddr, trusted: &str, name: &str, path: &str) -> std::io::Result<String> {
    get_of(address, trusted, name, name, path)
}

/// The same with another host in the request.
fn get_of(address: SocketAddr, trusted: &str, name: &str, host: &str, path: &str) -> std::io::Result<String> {
    let mut config = client_config(trusted, None);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut stream = connect(address, config, name);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

fn names(patterns: &[&str]) -> RuleSet {
    let server_names = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    RuleSet { server_names, ..RuleSet::open(1, Parser::Tls) }
}

#[test]
fn a63_only_listed_server_names_pass_and_nothing_is_decrypted() {
    let pem = certificate("www.good.example");
    let proxy = Proxy::new(tls_server(&pem, &[]), vec![names(&["*.good.example"])]);
    let answer = get(proxy.address, &pem.0, "www.good.example", "/x").unwrap();
    assert!(answer.ends_with("www.good.example: GET /x HTTP/1.1"), "{answer}");
    get(proxy.address, &pem.0, "www.bad.example", "/").unwrap_err();
    // An address is no name: the hello has none.
    get(proxy.address, &pem.0, "127.0.0.1", "/").unwrap_err();
    let told: Vec<_> = proxy.records().into_iter().map(|record| (record.verdict, record.application)).collect();
    let tls = |name: Option<&str>| Application::Tls(Tls { server_name: name.map(str::to_owned) });
    assert_eq!(
        told,
        [
            (Verdict::Forwarded, tls(Some("www.good.example"))),
            (Verdict::Denied, tls(Some("www.bad.example"))),
            (Verdict::Denied, tls(None)),
        ]
    );
}

#[test]
fn a63_a_hello_in_many_segments_is_read_and_other_bytes_are_refused() {
    let pem = certificate("www.good.example");
    let proxy = Proxy::new(tls_server(&pem, &[]), vec![names(&["www.good.example"])]);
    let config = Arc::new(client_config(&pem.0, None));
    let mut connection = ClientConnection::new(config, "www.good.example".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    let mut client = proxy.client();
    for part in hello.chunks(7) {
        client.write(part);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    while connection.is_handshaking() {
        connection.read_tls(&mut client.0).unwrap();
        connection.process_new_packets().unwrap();
        while connection.wants_write() {
            connection.write_tls(&mut client.0).unwrap();
        }
    }
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: www.good.example\r\n\r\n"[..],
        b"\x16\x03\x01\x00\x00",
        b"\x15\x03\x01\x00\x02\x01\x00",
    ] {
        let mut client = proxy.client();
        client.write(bytes);
        assert!(client.is_reset(), "{bytes:?}");
    }
    proxy.settings(|settings| settings.timeouts.head = 100);
    let mut client = proxy.client();
    client.write(&hello[..20]);
    assert!(client.is_reset(), "the rest does not come");
}

#[test]
fn http_inside_tls_is_judged_with_certificates_of_both_sides() {
    let (ours, theirs) = (certificate("web.example"), certificate("web.example"));
    let mut set = http_rules(1, r#"[{"path":"/ok"}]"#);
    set.server_names = vec!["web.example".into()];
    set.terminating_tls = Some(TlsServer { certificates: ours.0.clone(), key: Hidden(ours.1.clone()), trusted: None });
    set.originating_tls = Some(TlsClient { trusted: theirs.0.clone(), own: None });
    let proxy = Proxy::new(tls_server(&theirs, &[b"http/1.1"]), vec![set.clone()]);
    let answer = get(proxy.address, &ours.0, "web.example", "/ok").unwrap();
    assert!(answer.ends_with("web.example: GET /ok HTTP/1.1"), "{answer}");
    let answer = get(proxy.address, &ours.0, "web.example", "/no").unwrap();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.ends_with("Access denied\r\n"), "{answer}");
    get(proxy.address, &ours.0, "other.example", "/ok").unwrap_err();
    get(proxy.address, &theirs.0, "web.example", "/ok").unwrap_err();
    // A server that is not the one that is trusted gets nothing.
    set.originating_tls = Some(TlsClient { trusted: ours.0.clone(), own: None });
    proxy.set(vec![set]);
    get(proxy.address, &ours.0, "web.example", "/ok").unwrap_err();
}

#[test]
fn a63_inside_tls_no_host_goes_round_the_names_that_may_be_asked_for() {
    let pem = certificate("web.example");
    let origin = Origin::new();
    let mut set = http_rules(1, "[{}]");
    set.server_names = vec!["web.example".into(), "*.also.example".into()];
    set.terminating_tls = Some(TlsServer { certificates: pem.0.clone(), key: Hidden(pem.1.clone()), trusted: None });
    let proxy = Proxy::new(origin.address, vec![set.clone()]);
    let ask = |host: &str| code(&get_of(proxy.address, &pem.0, "web.example", host, "/").unwrap());
    for host in ["web.example", "web.example:443", "WEB.example", "x.also.example"] {
        assert_eq!(ask(host), 200, "{host}");
    }
    assert_eq!(origin.seen().len(), 4);
    for host in ["other.example", "web.example.", "web.example.other", "also.example", "127.0.0.1"] {
        assert_eq!(ask(host), 403, "{host}");
    }
    assert_eq!(origin.seen(), [""; 0]);
    // Where no names are asked for, hosts are what rules for hosts say.
    set.server_names.clear();
    proxy.set(vec![set]);
    assert_eq!(ask("other.example"), 200);
}

#[test]
fn tls_can_end_here_and_go_on_in_plain_text_or_begin_here() {
    let pem = certificate("web.example");
    let origin = Origin::new();
    let mut set = http_rules(1, r#"[{"path":"/ok"}]"#);
    set.terminating_tls = Some(TlsServer { certificates: pem.0.clone(), key: Hidden(pem.1.clone()), trusted: None });
    let proxy = Proxy::new(origin.address, vec![set]);
    assert!(get(proxy.address, &pem.0, "web.example", "/ok").unwrap().ends_with("ok"));
    assert!(get(proxy.address, &pem.0, "web.example", "/no").unwrap().starts_with("HTTP/1.1 403"));
    assert_eq!(origin.seen().len(), 1);

    let mut set = http_rules(1, r#"[{"path":"/ok"}]"#);
    set.originating_tls = Some(TlsClient { trusted: pem.0.clone(), own: None });
    let proxy = Proxy::new(tls_server(&pem, &[]), vec![set]);
    let ask = |path: &str| proxy.send(format!("GET {path} HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n"));
    assert!(ask("/ok").ends_with("web.example: GET /ok HTTP/1.1"));
    assert_eq!(code(&ask("/no")), 403);
    assert_eq!(code(&proxy.send("GET /ok HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n")), 503);
}

#[test]
fn a43_bad_certificates_refuse_and_tell_no_key() {
    let pem = certificate("web.example");
    for (certificates, key) in
        [("", pem.1.as_str()), (pem.0.as_str(), "hunter2"), (pem.0.as_str(), certificate("x").1.as_str())]
    {
        let mut set = http_rules(1, "[{}]");
        set.terminating_tls =
            Some(TlsServer { certificates: certificates.into(), key: Hidden(key.into()), trusted: None });
        let proxy = Proxy::new(Origin::new().address, vec![set]);
        assert!(proxy.client().is_reset());
        let rules = proxy.shared.rules.load();
        let why = rules.get(1).unwrap().broken.clone().unwrap();
        assert!(why.starts_with("terminatingTLS: ") && !why.contains("hunter2"), "{why}");
    }
}

#[test]
fn rules_that_ask_for_tls_from_now_on_end_plain_connections() {
    let pem = certificate("web.example");
    let plain = http_rules(1, "[{}]");
    let mut terminating = http_rules(1, "[{}]");
    terminating.terminating_tls =
        Some(TlsServer { certificates: pem.0.clone(), key: Hidden(pem.1.clone()), trusted: None });
    let mut originating = http_rules(1, "[{}]");
    originating.originating_tls = Some(TlsClient { trusted: pem.0.clone(), own: None });
    for other in [terminating, originating, RuleSet { parser: Parser::Tls, ..plain.clone() }, names(&["web.example"])] {
        let proxy = Proxy::new(Origin::new().address, vec![plain.clone()]);
        let mut client = proxy.client();
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().0, 200);
        proxy.set(vec![other]);
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(String::from_utf8(client.rest()).unwrap().starts_with("HTTP/1.1 403 "));
    }
}
