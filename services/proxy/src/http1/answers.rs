//! What is answered in place of the server, and how are heads changed on their way?

use std::time::{Duration, SystemTime};

use l7::http::Edit;
use l7::http1::{Head, Malformed, Request, Upgrade};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::judge::{denied_body, grpc_message, grpc_status};
use crate::wire::Wire;

/// How long an answer may take to be sent, and how long a client is listened to after it.
const PATIENCE: Duration = Duration::from_secs(5);
const LINGER: Duration = Duration::from_secs(1);
/// What a client may still send after it.
const MOST_LATE: usize = 256 << 10;

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    code: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    without_body: bool,
    closing: bool,
}

impl Local {
    /// With a text.
    pub fn plain(code: u16, text: &str) -> Local {
        let headers = vec![("content-type", "text/plain".to_owned())];
        Local { code, headers, body: format!("{text}\r\n"), without_body: false, closing: false }
    }

    /// To what is no request.
    pub fn malformed(malformed: Malformed) -> Local {
        let code = match malformed {
            Malformed::TooLong | Malformed::TooManyHeaders => 431,
            Malformed::TransferCoding => 501,
            Malformed::Version => 505,
            _ => 400,
        };
        Local::plain(code, &malformed.to_string())
    }

    /// To what no rule allows.
    pub fn denied(message: &str) -> Local {
        Local { body: denied_body(message), ..Local::plain(403, "") }
    }

    /// As the client understands it: one of gRPC reads its status in a header, and nobody reads a body after HEAD.
    pub fn to(self, grpc: bool, head: bool) -> Local {
        let without_body = head || self.without_body;
        if !grpc {
            return Local { without_body, ..self };
        }
        let status = grpc_status(self.code).to_owned();
        let mut headers = vec![("content-type", "application/grpc".to_owned()), ("grpc-status", status)];
        if !head {
            headers.push(("grpc-message", grpc_message(&self.body)));
        }
        Local { code: 200, headers, body: String::new(), without_body, ..self }
    }

    /// The same as the connection's last.
    pub fn closing(self) -> Local {
        Local { closing: true, ..self }
    }

    /// The code for the record.
    pub fn recorded(&self) -> u16 {
        self.code
    }

    fn bytes(&self) -> Vec<u8> {
        let reason = http::StatusCode::from_u16(self.code).ok().and_then(|code| code.canonical_reason());
        let mut text = format!("HTTP/1.1 {} {}\r\n", self.code, reason.unwrap_or_default());
        text.push_str(&format!("content-length: {}\r\n", self.body.len()));
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("date: {}\r\n", httpdate::fmt_http_date(SystemTime::now())));
        if self.closing {
            text.push_str("connection: close\r\n");
        }
        text.push_str("\r\n");
        if !self.without_body {
            text.push_str(&self.body);
        }
        text.into_bytes()
    }
}

/// Sends an answer; false if the client is gone.
pub async fn send(client: &mut Wire, local: &Local) -> bool {
    let bytes = local.bytes();
    let sending = async {
        client.write_all(&bytes).await?;
        client.flush().await
    };
    // Boxed, here and below: most connections never come here, and all would be as large.
    matches!(Box::pin(tokio::time::timeout(PATIENCE, sending)).await, Ok(Ok(())))
}

/// Ends our side and takes what still comes, so that the answer is not lost to a reset.
pub async fn linger(client: &mut Wire) {
    let rest = async {
        if client.shutdown().await.is_err() {
            return;
        }
        let mut left = MOST_LATE;
        let mut buffer = [0; 1024];
        while let Ok(count) = client.read(&mut buffer).await {
            if count == 0 || left < count {
                return;
            }
            left -= count;
        }
    };
    let _ = Box::pin(tokio::time::timeout(LINGER, rest)).await;
}

/// The head that goes on, if it is another than the one that came.
pub fn rewritten(request: &Request, edits: Vec<Edit>) -> Option<Vec<u8>> {
    let h2c = request.upgrade == Some(Upgrade::H2c);
    if edits.is_empty() && !h2c {
        return None;
    }
    let mut gone: Vec<String> = Vec::new();
    let mut add: Vec<(String, Vec<u8>)> = Vec::new();
    for edit in edits {
        let (name, value, all) = match edit {
            Edit::Add(name, value) => (name, Some(value), false),
            Edit::Set(name, value) => (name, Some(value), true),
            Edit::Remove(name) => (name, None, true),
        };
        if all {
            add.retain(|(known, _)| known != name.as_str());
            gone.push(name.as_str().to_owned());
        }
        if let Some(value) = value {
            add.push((name.as_str().to_owned(), value.as_bytes().to_vec()));
        }
    }
    if h2c {
        // The server must not change to a protocol that nobody judges (RFC 9113, 3.1 took it back).
        gone.extend(["upgrade", "http2-settings", "connection"].map(str::to_owned));
        let rest = request.head.words("connection").filter(|word| {
            !["upgrade", "http2-settings"].iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
        });
        let rest: Vec<&[u8]> = rest.collect();
        if !rest.is_empty() {
            add.push(("Connection".to_owned(), rest.join(&b", "[..])));
        }
    }
    let add: Vec<(&str, &[u8])> = add.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    Some(request.head.rewritten(|name| !gone.iter().any(|gone| gone.eq_ignore_ascii_case(name)), &add))
}

/// The head of an answer with which the client learns that the connection ends.
pub fn last(head: &Head) -> Vec<u8> {
    head.rewritten(|name| !name.eq_ignore_ascii_case("connection"), &[("Connection", b"close")])
}
