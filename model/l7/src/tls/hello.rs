//! Which server does a ClientHello name?
//!
//! The hello may come in several records, and those in any number of pieces (RFC 8446, 5.1). Nothing is decrypted: with
//! an encrypted ClientHello it is the outer name that is seen, as everybody on the way sees it.

/// The most bytes of a hello, and of what it comes in.
const MOST: usize = 64 << 10;
/// The most records that one hello may be spread over.
const MOST_RECORDS: usize = 64;
/// The most bytes in a record.
const RECORD: usize = 1 << 14;

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The server's name, in lower case.
    pub server_name: Option<String>,
    /// The protocols that it would speak (ALPN).
    pub protocols: Vec<Vec<u8>>,
    /// True if another hello is hidden in it.
    pub encrypted: bool,
}

/// How far a hello is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is not whole before there are so many bytes.
    Needs(usize),
    /// It is.
    Whole(ClientHello),
}

/// Why it is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Something else than a TLS handshake.
    #[error("not a TLS handshake")]
    NotTls,
    /// Longer, or in more pieces, than a hello may be.
    #[error("the ClientHello is too long")]
    TooLong,
    /// Its parts do not fit.
    #[error("malformed ClientHello")]
    Malformed,
    /// Several names, or one that is no name.
    #[error("malformed server name")]
    Name,
}

/// Reads a hello from all that has come so far.
pub fn client_hello(bytes: &[u8]) -> Result<Progress, HelloError> {
    let mut message = Vec::new();
    let mut at = 0;
    for _ in 0..MOST_RECORDS {
        let header = &bytes[at..];
        check_start(header)?;
        let Some(header) = header.get(..5) else { return Ok(Progress::Needs(at + 5)) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > RECORD {
            return Err(HelloError::NotTls);
        }
        let end = at + 5 + length;
        let body = &bytes[at + 5..end.min(bytes.len())];
        message.extend_from_slice(body);
        if let Some(whole) = whole_message(&message)? {
            return parse(whole).map(Progress::Whole);
        }
        if bytes.len() < end {
            return Ok(Progress::Needs(end));
        }
        at = end;
    }
    Err(HelloError::TooLong)
}

/// Handshake, version 3.x; as far as it is there.
fn check_start(header: &[u8]) -> Result<(), HelloError> {
    let wrong = header.first().is_some_and(|kind| *kind != 22) || header.get(1).is_some_and(|major| *major != 3);
    if wrong { Err(HelloError::NotTls) } else { Ok(()) }
}

/// The hello's body, if the message is whole.
fn whole_message(message: &[u8]) -> Result<Option<&[u8]>, HelloError> {
    if message.first().is_some_and(|kind| *kind != 1) {
        return Err(HelloError::NotTls);
    }
    let Some(header) = message.get(..4) else { return Ok(None) };
    let length = usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
    if length > MOST {
        return Err(HelloError::TooLong);
    }
    Ok(message.get(4..4 + length))
}

fn parse(body: &[u8]) -> Result<ClientHello, HelloError> {
    let mut rest = Cursor(body);
    rest.take(2 + 32)?;
    rest.list8()?;
    rest.list16()?;
    rest.list8()?;
    let mut hello = ClientHello { server_name: None, protocols: Vec::new(), encrypted: false };
    if rest.0.is_empty() {
        return Ok(hello);
    }
    let mut extensions = Cursor(rest.list16()?);
    if !rest.0.is_empty() {
        return Err(HelloError::Malformed);
    }
    let mut seen = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let value = extensions.list16()?;
        if seen.contains(&kind) {
            return Err(HelloError::Malformed);
        }
        seen.push(kind);
        match kind {
            0 => hello.server_name = Some(server_name(value)?),
            16 => hello.protocols = protocols(value)?,
            0xfe0d => hello.encrypted = true,
            _ => {}
        }
    }
    Ok(hello)
}

/// RFC 6066, 3: one name of the one kind that there is.
fn server_name(value: &[u8]) -> Result<String, HelloError> {
    let mut whole = Cursor(value);
    let mut list = Cursor(whole.list16()?);
    let kind = list.take(1)?[0];
    let name = list.list16()?;
    if kind != 0 || !list.0.is_empty() || !whole.0.is_empty() || !is_name(name) {
        return Err(HelloError::Name);
    }
    Ok(String::from_utf8_lossy(name).to_ascii_lowercase())
}

fn is_name(name: &[u8]) -> bool {
    let character = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    name.len() <= 255 && name.split(|byte| *byte == b'.').all(|label| !label.is_empty() && label.iter().all(character))
}

fn protocols(value: &[u8]) -> Result<Vec<Vec<u8>>, HelloError> {
    let mut list = Cursor(Cursor(value).list16()?);
    let mut names = Vec::new();
    while !list.0.is_empty() {
        names.push(list.list8()?.to_vec());
    }
    Ok(names)
}

/// Takes parts from the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], HelloError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(HelloError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number16(&mut self) -> Result<u16, HelloError> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn list8(&mut self) -> Result<&'a [u8], HelloError> {
        let count = self.take(1)?[0];
        self.take(count.into())
    }

    fn list16(&mut self) -> Result<&'a [u8], HelloError> {
        let count = self.number16()?;
        self.take(count.into())
    }
}

#[cfg(test)]
mod tests;
