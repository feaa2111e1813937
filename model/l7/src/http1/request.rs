//! What does a request ask for, of whom, and how long is it?

use super::lines::check_start;
use super::{Head, Limits, Malformed, Room};

/// A request's head, read.
#[derive(Debug, Clone, Copy)]
pub struct Request<'h, 'b> {
    /// The method.
    pub method: &'b str,
    /// What it asks for, as it came.
    pub target: Target<'b>,
    /// True if the version is 1.0.
    pub old: bool,
    /// The headers.
    pub head: Head<'h, 'b>,
    /// What follows the head.
    pub length: Length,
    /// The protocol that it wants to go on with.
    pub upgrade: Option<Upgrade>,
    /// The client will send more requests.
    pub keep_alive: bool,
    /// The client sends the rest only once it is told to, or has waited.
    pub expects_continue: bool,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'b> {
    /// Path and query, `*`, or nothing with CONNECT.
    pub path: &'b str,
    /// Of whom: the URL's authority, else the header Host; empty if there is none.
    pub authority: &'b str,
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many bytes.
    Bytes(u64),
    /// Chunks.
    Chunked,
    /// All until the connection ends.
    UntilClose,
}

/// What an Upgrade header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// WebSocket.
    WebSocket,
    /// HTTP/2 in plain text, which a server may ignore.
    H2c,
    /// Something else.
    Other,
}

impl<'h, 'b> Request<'h, 'b> {
    /// Refuses bytes that are there already and can begin no request.
    pub fn check_start(bytes: &[u8]) -> Result<(), Malformed> {
        check_start(bytes)
    }

    /// Reads a whole head, as [`super::Scan`] found it.
    pub fn read(bytes: &'b [u8], room: &'h mut Room<'b>, limits: &Limits) -> Result<Self, Malformed> {
        check_start(bytes)?;
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(bytes, &mut room.0) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(Malformed::Header),
            Err(error) => return Err(error.into()),
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Malformed::FirstLine);
        };
        let head = Head { bytes, headers: parsed.headers };
        if head.headers.len() > limits.headers {
            return Err(Malformed::TooManyHeaders);
        }
        let old = version == 0;
        let target = Target::read(method, target, host(&head, old)?)?;
        let length = match length(&head, old)? {
            // What follows CONNECT belongs to no request.
            Some(_) if method == "CONNECT" => return Err(Malformed::Length),
            length => length.unwrap_or(Length::Bytes(0)),
        };
        check_connection(&head)?;
        Ok(Request {
            method,
            target,
            old,
            head,
            length,
            upgrade: upgrade(&head, old),
            keep_alive: keep_alive(&head, old),
            expects_continue: head.has_word("expect", "100-continue"),
        })
    }
}

impl<'b> Target<'b> {
    /// Reads a target with the one Host that came with it.
    fn read(method: &str, target: &'b str, host: Option<&'b str>) -> Result<Target<'b>, Malformed> {
        if target.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'#') {
            return Err(Malformed::Target);
        }
        let own = host.unwrap_or_default();
        if method == "CONNECT" {
            let port = target.rsplit_once(':').is_some_and(|(name, port)| {
                !name.is_empty() && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
            });
            if !port || !is_authority(target) {
                return Err(Malformed::Target);
            }
            return same_host(target, host).map(|authority| Target { path: "", authority });
        }
        if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
            return Ok(Target { path: target, authority: own });
        }
        let absolute =
            target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://")).ok_or(Malformed::Target)?;
        let rest = &target[absolute.len()..];
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() || !is_authority(authority) {
            return Err(Malformed::Target);
        }
        // A URL without path means "/", which the server has to make of it.
        if !path.starts_with('/') && !path.is_empty() {
            return Err(Malformed::Target);
        }
        let path = if path.is_empty() { "/" } else { path };
        same_host(authority, host).map(|authority| Target { path, authority })
    }
}

/// Two names of the server must be one: readers differ in which of them they take.
fn same_host<'b>(authority: &'b str, host: Option<&'b str>) -> Result<&'b str, Malformed> {
    if host.is_none_or(|host| host == authority) { Ok(authority) } else { Err(Malformed::Host) }
}

/// The one Host. Only HTTP/1.0 may have none.
fn host<'b>(head: &Head<'_, 'b>, old: bool) -> Result<Option<&'b str>, Malformed> {
    let mut hosts = head.values("host");
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if old => return Ok(None),
        (Some(host), None) => std::str::from_utf8(host).map_err(|_| Malformed::Host)?,
        _ => return Err(Malformed::Host),
    };
    if is_authority(host) { Ok(Some(host)) } else { Err(Malformed::Host) }
}

/// Characters of a name or address with a port, without user (RFC 3986, 3.2). A comma would be two hosts.
fn is_authority(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte))
}

/// What Content-Length and Transfer-Encoding say; `None`: nothing.
pub(super) fn length(head: &Head, old: bool) -> Result<Option<Length>, Malformed> {
    let mut codings = head.values("transfer-encoding");
    let mut lengths = head.values("content-length");
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Malformed::Length),
        (Some(coding), None) => {
            let plain = coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none() && !old;
            if plain { Ok(Some(Length::Chunked)) } else { Err(Malformed::TransferCoding) }
        }
        (None, Some(length)) => {
            let digits = !length.is_empty() && length.len() <= 18 && length.iter().all(u8::is_ascii_digit);
            if !digits || lengths.next().is_some() {
                return Err(Malformed::Length);
            }
            let number = length.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
            Ok(Some(Length::Bytes(number)))
        }
    }
}

/// A server that takes Connection at its word drops what it names; that must not change what the message is.
pub(super) fn check_connection(head: &Head) -> Result<(), Malformed> {
    let framing = ["host", "content-length", "transfer-encoding"];
    let named = |word: &[u8]| framing.iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()));
    if head.words("connection").any(named) { Err(Malformed::Connection) } else { Ok(()) }
}

pub(super) fn keep_alive(head: &Head, old: bool) -> bool {
    if old { head.has_word("connection", "keep-alive") } else { !head.has_word("connection", "close") }
}

fn upgrade(head: &Head, old: bool) -> Option<Upgrade> {
    let mut wanted = head.words("upgrade").peekable();
    wanted.peek()?;
    if old || !head.has_word("connection", "upgrade") {
        // Without Connection nobody may act on it; but somebody might.
        return Some(Upgrade::Other);
    }
    let kind = |word: &[u8]| match word {
        _ if word.eq_ignore_ascii_case(b"websocket") => Upgrade::WebSocket,
        _ if word.eq_ignore_ascii_case(b"h2c") => Upgrade::H2c,
        _ => Upgrade::Other,
    };
    let first = wanted.next().map(kind)?;
    if wanted.all(|word| kind(word) == first) { Some(first) } else { Some(Upgrade::Other) }
}

impl From<httparse::Error> for Malformed {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::HeaderName | httparse::Error::HeaderValue => Malformed::Header,
            httparse::Error::NewLine => Malformed::BareReturn,
            httparse::Error::TooManyHeaders => Malformed::TooManyHeaders,
            httparse::Error::Version => Malformed::Version,
            httparse::Error::Status | httparse::Error::Token => Malformed::FirstLine,
        }
    }
}
