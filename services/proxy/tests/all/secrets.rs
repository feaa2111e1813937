//! Is anything of a secret in the log, however much is logged?

use std::process::{Command, Stdio};

use proxy_api::*;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use tracing_subscriber::filter::LevelFilter;

use crate::harness::*;
use crate::tls::{certificate, client_config, connect};

/// Set for a process that logs all that there is to log.
const LOUD: &str = "PROXY_TEST_LOUD";
/// A header's value that only a Secret has.
const MARKER: &str = "hunter2-of-a-secret";

/// Is one of the tests, and does nothing but where it is wanted: then it prints marks that must not be in the log, and
/// the log.
#[test]
fn loud() {
    if std::env::var_os(LOUD).is_none() {
        return;
    }
    tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr).with_ansi(false).init();
    let pem = certificate("web.example");
    let PrivateKeyDer::Pkcs8(key) = PrivateKeyDer::from_pem_slice(pem.1.as_bytes()).unwrap() else { panic!() };
    // The part behind what all keys begin with, as it would be told: in PEM, as numbers, as escapes.
    let middle = &key.secret_pkcs8_der()[40..56];
    println!("MARK {}", &pem.1.lines().nth(2).unwrap()[..24]);
    println!("MARK {}", format!("{middle:?}").trim_matches(['[', ']']));
    println!("MARK {}", middle.escape_ascii());
    println!("MARK {MARKER}");
    let rules = format!(
        r#"[{{"headerMatches":[{{"name":"X-T","value":"{MARKER}","secret":{{"name":"s"}},"mismatch":"REPLACE"}}]}}]"#
    );
    let mut set = http_rules(1, &rules);
    set.terminating_tls = Some(TlsServer { certificates: pem.0.clone(), key: Hidden(pem.1.clone()), trusted: None });
    let origin = Origin::new();
    let proxy = Proxy::new(origin.address, vec![set.clone()]);
    let mut client = connect(proxy.address, client_config(&pem.0, None), "web.example");
    std::io::Write::write_all(&mut client, b"GET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    let _ = std::io::Read::read_to_string(&mut client, &mut answer);
    assert!(origin.seen().concat().contains(MARKER));
    // In plain text and by HTTP/2, too; and contexts that are of no use.
    set.terminating_tls = None;
    let (address, seen) = crate::http2::origin();
    let proxy = Proxy::new(address, vec![set.clone()]);
    proxy.block_on(async {
        let mut client = crate::http2::connect(proxy.address).await;
        let request = crate::http2::request("GET", "http://web/", crate::http2::empty());
        assert_eq!(client.send_request(request).await.unwrap().status(), 200);
    });
    assert_eq!(seen.lock().unwrap().len(), 1);
    for (certificates, key) in [(&pem.1, &pem.1), (&pem.0, &pem.0), (&pem.0, &format!("{}{MARKER}", &pem.1[..90]))] {
        let context = TlsServer { certificates: certificates.clone(), key: Hidden(key.clone()), trusted: None };
        set.terminating_tls = Some(context);
        proxy.set(vec![set.clone()]);
        assert!(proxy.client().is_reset());
    }
    tracing::info!("the end of the log");
}

#[test]
fn a43_nothing_of_a_secret_is_in_the_log_however_much_is_logged() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["secrets::loud", "--exact", "--nocapture"]).env(LOUD, "1").stdin(Stdio::null());
    let ran = command.output().unwrap();
    let (marks, log) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{log}");
    let marks: Vec<&str> = marks.lines().filter_map(|line| line.strip_prefix("MARK ")).collect();
    assert_eq!(marks.len(), 4, "{marks:?}");
    for mark in marks {
        let found = log.lines().find(|line| line.contains(mark));
        assert!(found.is_none(), "{mark}: {found:?}");
    }
    // It is a log, and of all that is inside.
    for part in ["TRACE", "h2::", "the end of the log"] {
        assert!(log.contains(part), "{part}");
    }
}
