//! Is a header as a rule has it, and what happens if not?

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Allowed, Fields, Secrets};

/// A change of a request's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// One more value.
    Add(HeaderName, HeaderValue),
    /// No value any more.
    Remove(HeaderName),
    /// This value in place of all others.
    Set(HeaderName, HeaderValue),
}

impl Edit {
    /// Makes the change.
    pub fn apply(self, headers: &mut HeaderMap) {
        match self {
            Edit::Add(name, value) => {
                headers.append(name, value);
            }
            Edit::Remove(name) => {
                headers.remove(name);
            }
            Edit::Set(name, value) => {
                headers.insert(name, value);
            }
        }
    }
}

/// A header that was not as the rule has it. Values that come from secrets are not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderRecord {
    /// The rule's value was not there.
    Missing(HeaderName, String),
    /// Another value was there.
    Rejected(HeaderName, String),
}

/// What takes the place of values that nobody may see.
const REDACTED: &str = "[redacted]";

/// One header that a rule asks for.
#[derive(Clone)]
pub(super) struct Header {
    /// `None`: a name or value that no request can have.
    name: Option<HeaderName>,
    wanted: Wanted,
    secret: bool,
    mismatch: Mismatch,
}

// Values may come from secrets.
impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Header").field("name", &self.name).field("mismatch", &self.mismatch).finish_non_exhaustive()
    }
}

#[derive(Clone)]
enum Wanted {
    /// Any value.
    Present,
    /// This one.
    Value(HeaderValue),
    /// A secret that has no value.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mismatch {
    Deny,
    Log,
    Add,
    Delete,
    Replace,
}

/// The headers of a rule, those without action first.
pub(super) fn read(rule: &crds::HttpRule, secrets: &dyn Secrets) -> Vec<Header> {
    let plain = rule.headers.iter().flatten().map(|text| plain(text));
    let matched = rule.header_matches.iter().flatten().map(|header| matched(header, secrets));
    plain.chain(matched).collect()
}

/// `Name: value` or `Name`.
fn plain(text: &str) -> Header {
    let (name, value) = text.split_once(' ').map_or((text, ""), |(name, value)| (name.trim_end_matches(':'), value));
    Header { name: name.parse().ok(), wanted: Wanted::of(value.as_bytes()), secret: false, mismatch: Mismatch::Deny }
}

fn matched(header: &crds::HeaderMatch, secrets: &dyn Secrets) -> Header {
    let inline = header.value.as_deref().unwrap_or_default().as_bytes();
    let wanted = match &header.secret {
        None => Wanted::of(inline),
        Some(secret) => match secrets.header_value(secret) {
            Some(value) => Wanted::of(&value),
            None if inline.is_empty() => Wanted::Nothing,
            None => Wanted::of(inline),
        },
    };
    let mismatch = match header.mismatch.as_deref() {
        Some("LOG") => Mismatch::Log,
        Some("ADD") => Mismatch::Add,
        Some("DELETE") => Mismatch::Delete,
        Some("REPLACE") => Mismatch::Replace,
        Some(_) | None => Mismatch::Deny,
    };
    Header { name: header.name.parse().ok(), wanted, secret: header.secret.is_some(), mismatch }
}

impl Wanted {
    fn of(value: &[u8]) -> Wanted {
        match HeaderValue::from_bytes(value) {
            Ok(_) if value.is_empty() => Wanted::Present,
            Ok(value) => Wanted::Value(value),
            Err(_) => Wanted::Nothing,
        }
    }
}

impl Header {
    /// Whether the rule still holds; adds to what is done and told if it does.
    pub(super) fn allows(&self, headers: &dyn Fields, allowed: &mut Allowed) -> bool {
        let Some(name) = &self.name else { return false };
        let found = all_values(headers, name);
        match &self.wanted {
            Wanted::Nothing => false,
            Wanted::Present => found.is_some() || self.differs(name, &HeaderValue::from_static(""), None, allowed),
            Wanted::Value(wanted) => {
                found.as_deref().is_some_and(|found| same(found, wanted.as_bytes()))
                    || self.differs(name, wanted, found.as_deref(), allowed)
            }
        }
    }

    fn differs(&self, name: &HeaderName, wanted: &HeaderValue, found: Option<&[u8]>, allowed: &mut Allowed) -> bool {
        let shown =
            |value: &[u8]| if self.secret { REDACTED.into() } else { String::from_utf8_lossy(value).into_owned() };
        let missing = || HeaderRecord::Missing(name.clone(), shown(wanted.as_bytes()));
        let rejected = found.map(|found| HeaderRecord::Rejected(name.clone(), shown(found)));
        match self.mismatch {
            Mismatch::Deny => return false,
            Mismatch::Log => allowed.records.push(missing()),
            Mismatch::Add => {
                allowed.edits.push(Edit::Add(name.clone(), wanted.clone()));
                allowed.records.push(missing());
            }
            Mismatch::Delete => {
                if let Some(rejected) = rejected {
                    allowed.edits.push(Edit::Remove(name.clone()));
                    allowed.records.push(rejected);
                }
            }
            Mismatch::Replace => {
                allowed.edits.push(Edit::Set(name.clone(), wanted.clone()));
                allowed.records.extend(rejected);
                allowed.records.push(missing());
            }
        }
        true
    }
}

/// All values of a header as one.
fn all_values(headers: &dyn Fields, name: &HeaderName) -> Option<Vec<u8>> {
    let mut all: Option<Vec<u8>> = None;
    headers.each(name, &mut |value| match &mut all {
        None => all = Some(value.to_vec()),
        Some(all) => {
            all.push(b',');
            all.extend_from_slice(value);
        }
    });
    all
}

/// Takes as long for any values of one length, so that secrets cannot be guessed by the clock.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |all, (left, right)| all | (left ^ right)) == 0
}
