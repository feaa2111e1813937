//! Do agent and proxy understand each other, whatever comes over the socket?
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use proxy_api::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

fn hello(epoch: u64) -> AgentHello {
    AgentHello { version: VERSION, epoch, listeners: vec![], settings: Settings::default() }
}

fn proxy(path: &Path) -> (mpsc::Sender<FromProxy>, mpsc::Receiver<Event>) {
    let (send, outgoing) = mpsc::channel(16);
    let (events, receive) = mpsc::channel(16);
    tokio::spawn(Client::new(path, "test").run(outgoing, events));
    (send, receive)
}

async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    tokio::time::timeout(Duration::from_secs(20), events.recv()).await.unwrap().unwrap()
}

/// The next event that is not that the agent is away.
async fn heard(events: &mut mpsc::Receiver<Event>) -> Event {
    loop {
        match next(events).await {
            Event::Away(_) => {}
            event => return event,
        }
    }
}

/// An agent and a proxy that have said hello.
struct Opened {
    session: Session,
    send: mpsc::Sender<FromProxy>,
    events: mpsc::Receiver<Event>,
    path: std::path::PathBuf,
    _kept: (Server, tempfile::TempDir),
}

async fn open() -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let server = Server::bind(&path, None).unwrap();
    let (send, mut events) = proxy(&path);
    let session = server.accept().await.unwrap().greet(hello(1)).await.unwrap();
    assert_eq!(heard(&mut events).await, Event::Hello(hello(1)));
    Opened { session, send, events, path, _kept: (server, folder) }
}

fn rules(revision: u64, set: Vec<RuleSet>) -> RulesUpdate {
    RulesUpdate { revision, whole: true, last: true, set, removed: vec![7] }
}

#[tokio::test]
async fn rules_go_down_and_records_come_up() {
    let Opened { mut session, send, mut events, path, _kept } = open().await;
    let mode = std::fs::metadata(&path).unwrap();
    assert_eq!((mode.permissions().mode() & 0o777, mode.uid()), (0o600, nix::unistd::Uid::effective().as_raw()));
    assert_eq!((session.hello.pid, session.hello.program.as_str()), (std::process::id(), "test"));
    let update = rules(5, vec![RuleSet::open(1, Parser::Http)]);
    session.writer.send_rules(update.clone()).await.unwrap();
    assert_eq!(heard(&mut events).await, Event::Rules(update));
    let realised = FromProxy::Realised(Realised { epoch: 1, revision: 5, listening: true });
    send.send(realised.clone()).await.unwrap();
    assert_eq!(session.reader.next().await.unwrap(), Some(realised));
}

#[tokio::test]
async fn a_group_that_is_let_in_may_connect_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let _server = Server::bind(&path, Some(1_337)).unwrap();
    let file = std::fs::metadata(&path).unwrap();
    assert_eq!((file.permissions().mode() & 0o777, file.uid(), file.gid()), (0o660, 0, 1_337));
}

#[tokio::test]
async fn a_change_of_many_rule_sets_comes_whole() {
    let Opened { mut session, send: _send, mut events, _kept, .. } = open().await;
    let long = crds::HttpRule { path: Some("/x".repeat(2_000)), ..Default::default() };
    let set = |id| RuleSet { http: Some(Hidden(vec![long.clone(); 4])), ..RuleSet::open(id, Parser::Http) };
    let update = rules(9, (0..300).map(set).collect());
    let sent = update.clone();
    tokio::spawn(async move {
        session.writer.send_rules(sent).await.unwrap();
        session.reader.next().await.unwrap();
    });
    assert_eq!(heard(&mut events).await, Event::Rules(update));
}

#[tokio::test]
async fn what_is_too_long_is_refused_by_who_sends_and_names_the_rule_set() {
    let Opened { mut session, send: _send, mut events, _kept, .. } = open().await;
    let long = crds::HttpRule { path: Some("x".repeat(MAX_FRAME)), ..Default::default() };
    let set = RuleSet { http: Some(Hidden(vec![long])), ..RuleSet::open(12, Parser::Http) };
    let error = session.writer.send_rules(rules(1, vec![set])).await.unwrap_err();
    assert!(error.to_string().starts_with("rule set 12 takes "), "{error}");
    session.writer.send_rules(rules(2, vec![])).await.unwrap();
    assert_eq!(heard(&mut events).await, Event::Rules(rules(2, vec![])));
}

#[tokio::test]
async fn the_proxy_comes_back_to_a_new_agent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let (_send, mut events) = proxy(&path);
    assert!(matches!(next(&mut events).await, Event::Away(_)));
    for epoch in 1..4 {
        let server = Server::bind(&path, None).unwrap();
        let session = server.accept().await.unwrap().greet(hello(epoch)).await.unwrap();
        assert_eq!(heard(&mut events).await, Event::Hello(hello(epoch)));
        drop((session, server));
        assert!(matches!(next(&mut events).await, Event::Away(_)));
    }
}

/// What the agent says of these bytes of a proxy that then closes.
async fn greeted(bytes: &[u8]) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let server = Server::bind(&path, None).unwrap();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    server.accept().await.unwrap().greet(hello(1)).await.unwrap_err()
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

#[tokio::test]
async fn half_frames_garbage_and_long_frames_end_the_connection() {
    assert!(matches!(greeted(b"").await, Error::NoHello("the end")));
    assert!(matches!(greeted(b"\0\0").await, Error::Broken(_)));
    assert!(matches!(greeted(&frame(b"{\"hello\":")[..9]).await, Error::Broken(_)));
    assert!(matches!(greeted(&[0xff; 4]).await, Error::Broken(_)));
    assert!(matches!(greeted(b"GET / HTTP/1.1\r\n\r\n").await, Error::Broken(_)));
    // Access records are not JSON: none at all, with a byte too many, and cut off.
    assert!(matches!(greeted(&frame(b"\x01\x00\x00")).await, Error::NoHello("another message")));
    for records in [&b"\x01\x00\x00\x00"[..], b"\x01\x00", b"\x01", b"\x01\x00\xff\xff\xff\xff\x0f"] {
        assert!(matches!(greeted(&frame(records)).await, Error::Garbage { .. }), "{records:?}");
    }
    assert!(matches!(greeted(&frame(b"\xff\x00")).await, Error::Garbage { .. }));
    assert!(matches!(greeted(&frame(b"{\"counters\":{}}")).await, Error::NoHello("another message")));
    let other = frame(b"{\"hello\":{\"version\":0,\"pid\":1,\"program\":\"x\"}}");
    assert!(matches!(greeted(&other).await, Error::Version { found: 0, expected: VERSION }));
}

#[tokio::test]
async fn a_frame_in_single_bytes_is_a_frame() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let server = Server::bind(&path, None).unwrap();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let greeting = server.accept().await.unwrap();
    let greeted = tokio::spawn(greeting.greet(hello(1)));
    for byte in frame(format!("{{\"hello\":{{\"version\":{VERSION},\"pid\":4,\"program\":\"\"}}}}").as_bytes()) {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(greeted.await.unwrap().unwrap().hello.pid, 4);
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.unwrap();
    assert!(u32::from_be_bytes(length) > 10);
}

#[tokio::test]
async fn an_agent_of_another_version_is_not_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let server = Server::bind(&path, None).unwrap();
    let (_send, mut events) = proxy(&path);
    let _session = server.accept().await.unwrap().greet(AgentHello { version: 99, ..hello(1) }).await;
    match next(&mut events).await {
        Event::Away(why) => assert!(why.contains("version 99"), "{why}"),
        event => panic!("{event:?}"),
    }
}

#[test]
fn a43_secrets_are_in_no_debug_output_and_in_no_error() {
    let json = r#"{"id":1,"parser":"http","http":[{"headerMatches":[{"name":"X","value":"hunter2"}]}],
        "terminating_tls":{"certificates":"C","key":"hunter2"},"originating_tls":{"trusted":"T","own":["C","hunter2"]}}"#;
    let set: RuleSet = serde_json::from_str(json).unwrap();
    assert!(!format!("{set:?} {:?}", rules(1, vec![set.clone()])).contains("hunter2"));
    let again: RuleSet = serde_json::from_str(&serde_json::to_string(&set).unwrap()).unwrap();
    assert_eq!(again, set);
}

#[tokio::test]
async fn a43_garbage_is_not_quoted() {
    let error = greeted(&frame(b"{\"hello\":{\"version\":\"hunter2\"}}")).await;
    assert!(matches!(error, Error::Garbage { .. }) && !error.to_string().contains("hunter2"), "{error}");
}
