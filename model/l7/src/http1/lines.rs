//! Where does a head end, and which lines does it have?

use std::mem::MaybeUninit;

use super::Malformed;

/// How much a head may have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes.
    pub bytes: usize,
    /// Header lines; at most [`Limits::MOST_HEADERS`].
    pub headers: usize,
}

impl Limits {
    /// No head may have more header lines than these, whatever is set.
    pub const MOST_HEADERS: usize = 256;
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: 60 << 10, headers: 100 }
    }
}

/// Looks for the end of a head in bytes that arrive piece by piece.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scan {
    seen: usize,
}

impl Scan {
    /// The head's length, once it is whole. `bytes` begin with the head, and grow from call to call.
    pub fn find(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Malformed> {
        let window = &bytes[..bytes.len().min(limits.bytes)];
        for at in memchr::memchr_iter(b'\n', &window[self.seen.min(window.len())..]).map(|at| at + self.seen) {
            if at == 0 || window[at - 1] != b'\r' {
                return Err(Malformed::BareLineFeed);
            }
            if at >= 3 && window[at - 3..at] == *b"\r\n\r" {
                return Ok(Some(at + 1));
            }
        }
        self.seen = window.len();
        if bytes.len() >= limits.bytes { Err(Malformed::TooLong) } else { Ok(None) }
    }
}

/// Refuses bytes that no request can begin with, as soon as they are there.
pub(super) fn check_start(bytes: &[u8]) -> Result<(), Malformed> {
    let method = bytes.iter().take(32).position(|byte| !is_token(*byte)).unwrap_or(bytes.len().min(32));
    match bytes.get(method) {
        Some(b' ') if method > 0 => Ok(()),
        Some(_) => Err(Malformed::NotHttp),
        None => Ok(()),
    }
}

/// A character of a token (RFC 9110, 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Room for the header lines of one head, wherever the caller wants it.
pub struct Room<'b>(pub(super) [MaybeUninit<httparse::Header<'b>>; Limits::MOST_HEADERS]);

impl Default for Room<'_> {
    fn default() -> Self {
        Room([const { MaybeUninit::uninit() }; Limits::MOST_HEADERS])
    }
}

impl std::fmt::Debug for Room<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Room")
    }
}

/// The header lines of a head, and the bytes that they came as.
#[derive(Debug, Clone, Copy)]
pub struct Head<'h, 'b> {
    /// All of it, to the empty line and with it.
    pub bytes: &'b [u8],
    pub(super) headers: &'h [httparse::Header<'b>],
}

impl<'h, 'b> Head<'h, 'b> {
    /// Names and values, in their order.
    pub fn lines(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + use<'h, 'b> {
        self.headers.iter().map(|header| (header.name, header.value))
    }

    /// The values of one header, in their order.
    pub fn values<'s>(&self, name: &'s str) -> impl Iterator<Item = &'b [u8]> + use<'h, 'b, 's> {
        self.lines().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The words of one header, between commas.
    pub fn words<'s>(&self, name: &'s str) -> impl Iterator<Item = &'b [u8]> + use<'h, 'b, 's> {
        let split = |value: &'b [u8]| value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        self.values(name).flat_map(split).filter(|word| !word.is_empty())
    }

    /// True if one of a header's words is this, in any case.
    pub fn has_word(&self, name: &str, wanted: &str) -> bool {
        self.words(name).any(|word| word.eq_ignore_ascii_case(wanted.as_bytes()))
    }

    /// The head with some of its header lines left out and others put at its end.
    pub fn rewritten(&self, keep: impl Fn(&str) -> bool, add: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 64);
        let lines = self.bytes.get(..self.bytes.len().saturating_sub(2)).unwrap_or_default();
        for (number, line) in lines.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            if number == 0 || std::str::from_utf8(name).is_ok_and(&keep) {
                out.extend_from_slice(line);
            }
        }
        for (name, value) in add {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

impl crate::http::Fields for Head<'_, '_> {
    fn each(&self, name: &http::HeaderName, found: &mut dyn FnMut(&[u8])) {
        for (line, value) in self.lines() {
            if line.eq_ignore_ascii_case(name.as_str()) {
                found(value);
            }
        }
    }
}
