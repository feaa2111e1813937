//! What do proxies make of the first bytes that a client or a server sends?

use l7::http1::{Answer, Framing, Limits, Request, Room};

/// One message, read as each protocol.
pub fn run(data: &[u8]) {
    dns(data);
    http(data);
    if let Ok(l7::tls::Progress::Whole(hello)) = l7::tls::client_hello(data) {
        let again = l7::tls::client_hello(data);
        assert!(matches!(again, Ok(l7::tls::Progress::Whole(other)) if other == hello), "read twice, it is the same");
    }
}

fn dns(data: &[u8]) {
    let question = match dns::read_question(data) {
        Ok(question) => question,
        Err(unfit) => return drop(unfit.answer()),
    };
    assert_eq!(l7::dns::canonical_name(question.name()), question.name(), "names are canonical");
    let refusal = dns::failure(&question, 5);
    assert!(dns::read_answer(&question, question.id, &refusal).is_ok(), "our own answers can be read");
    let _ = dns::read_answer(&question, question.id, data);
}

fn http(data: &[u8]) {
    let limits = Limits::default();
    if let Ok(request) = Request::read(data, &mut Room::default(), &limits) {
        body(Framing::new(request.length), data);
    }
    for method in ["GET", "HEAD", "CONNECT"] {
        if let Ok(answer) = Answer::read(data, &mut Room::default(), &limits, method) {
            let _ = answer.is_interim();
        }
    }
}

/// Bytes given one by one and all at once end at the same place.
fn body(framing: Framing, data: &[u8]) {
    let mut whole = framing;
    let mut parts = framing;
    let at_once = whole.advance(data);
    let mut taken = 0;
    while taken < data.len() && !parts.is_done() {
        match parts.advance(&data[taken..=taken]) {
            Ok(count) => taken += count,
            Err(_) => return assert!(at_once.is_err(), "what is wrong in parts is wrong at once"),
        }
    }
    if let Ok(count) = at_once {
        assert_eq!((count, whole.is_done()), (taken, parts.is_done()), "parts are taken as the whole is");
    }
}
