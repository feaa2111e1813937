//! Is it the wanted HTTP request or response?

use super::{FilterError, Test, any, l7, pattern};
use crate::{
    decode::TYPE_L7,
    proto::flow::{Flow, FlowFilter, Http, layer7::Record},
};

pub(super) fn compile(filter: &FlowFilter, tests: &mut Vec<Test>) -> Result<(), FilterError> {
    check_types(filter)?;
    let codes = filter.http_status_code.iter().map(|text| status(text)).collect::<Result<Vec<_>, _>>()?;
    any(tests, &codes, |flow, wanted| {
        http(flow).is_some_and(|http| http.code != 0 && wanted.matches(&format!("{:03}", http.code)))
    });
    any(tests, &filter.http_method, |flow, method| {
        http(flow).is_some_and(|http| !http.method.is_empty() && http.method.eq_ignore_ascii_case(method))
    });
    any(tests, &pattern::expressions("http path", &filter.http_path)?, |flow, pattern| {
        http(flow).and_then(|http| path(&http.url)).is_some_and(|path| pattern.is_match(&path))
    });
    any(tests, &pattern::expressions("http url", &filter.http_url)?, |flow, pattern| {
        http(flow).is_some_and(|http| !http.url.is_empty() && pattern.is_match(&http.url))
    });
    any(tests, &filter.http_header, |flow, wanted| http(flow).is_some_and(|http| http.headers.contains(wanted)));
    Ok(())
}

fn http(flow: &Flow) -> Option<&Http> {
    match l7(flow)? {
        Record::Http(http) => Some(http),
        _ => None,
    }
}

/// A filter for HTTP and for event types without HTTP would never match.
fn check_types(filter: &FlowFilter) -> Result<(), FilterError> {
    let possible = filter.event_type.is_empty() || filter.event_type.iter().any(|wanted| wanted.r#type == TYPE_L7);
    let asked = [
        (filter.http_status_code.is_empty(), "http status code"),
        (filter.http_method.is_empty(), "http method"),
        (filter.http_path.is_empty(), "http path"),
        (filter.http_url.is_empty(), "http url"),
        (filter.http_header.is_empty(), "http headers"),
    ];
    match asked.into_iter().find(|(empty, _)| !empty) {
        Some((_, what)) if !possible => Err(FilterError::HttpType(what)),
        _ => Ok(()),
    }
}

#[derive(Clone)]
enum Status {
    Exactly(String),
    Prefix(String),
}

impl Status {
    fn matches(&self, code: &str) -> bool {
        match self {
            Status::Exactly(wanted) => wanted == code,
            Status::Prefix(prefix) => code.starts_with(prefix.as_str()),
        }
    }
}

/// Three digits, or one or two and a plus sign; the first is 1 to 5.
fn status(text: &str) -> Result<Status, FilterError> {
    let digits = text.strip_suffix('+').unwrap_or(text);
    let numeric =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && matches!(digits.bytes().next(), Some(b'1'..=b'5'));
    match (numeric, text.ends_with('+'), digits.len()) {
        (true, false, 3) => Ok(Status::Exactly(digits.to_owned())),
        (true, true, 1 | 2) => Ok(Status::Prefix(digits.to_owned())),
        _ => Err(FilterError::HttpStatus(text.to_owned())),
    }
}

/// The decoded path of an absolute URL or of an absolute path.
fn path(url: &str) -> Option<String> {
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |start| &rest[start..]),
        None if url.starts_with('/') => url,
        None => return None,
    };
    decode(path.split('?').next().unwrap_or_default())
}

/// Undoes percent encoding; None if it is broken.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            other => other,
        };
        bytes.push(decoded);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}
