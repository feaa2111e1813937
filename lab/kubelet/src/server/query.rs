//! What did the caller ask for after the question mark?

use axum::http::StatusCode;

use super::Refused;

/// The query of a request: keys may repeat.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(raw: Option<String>) -> Query {
        let raw = raw.unwrap_or_default();
        let pairs = raw.split('&').filter(|p| !p.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub(super) fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(k, _)| k == key).map(|(_, v)| v.clone()).collect()
    }

    /// Either name: that of the API server's and that of the kubelet's interface.
    pub(super) fn flag(&self, names: [&str; 2]) -> bool {
        names.iter().any(|n| self.get(n).is_some_and(|v| v != "0" && v != "false"))
    }

    pub(super) fn number<T: std::str::FromStr>(&self, key: &str) -> std::result::Result<Option<T>, Refused> {
        match self.get(key).filter(|v| !v.is_empty()) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| Refused(StatusCode::BAD_REQUEST, format!("parameter {key} is {text:?}, not a number"))),
        }
    }
}

/// Percent-decoding of a query.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (byte, hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_repeat_and_are_decoded() {
        let query = Query::parse(Some("command=ls&command=a+b%2Fc&stdin=1&tty=false&x=%zz".into()));
        assert_eq!(query.all("command"), ["ls", "a b/c"]);
        assert!(query.flag(["stdin", "input"]) && !query.flag(["tty", "tty"]));
        assert_eq!(query.get("x"), Some("%zz"));
        assert!(query.number::<u32>("command").is_err());
    }
}
