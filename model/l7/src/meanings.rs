//! What may a path mean to a server?
//!
//! Servers differ in what they make of `%2e`, `//`, `..`, `%2F`, `;` and `\`. A path that more than one reading exists
//! of passes only if each reading is allowed; it goes on as it came.

/// Readings of a path other than the path itself; each once. Most paths have none.
///
/// The query belongs to none of it and stays as it is.
pub fn others(target: &str) -> Vec<String> {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    if is_plain(path) {
        return Vec::new();
    }
    let mut readings = Vec::new();
    let mut add = |bytes: Vec<u8>| {
        let reading = String::from_utf8_lossy(&bytes).into_owned() + query;
        if reading != target && !readings.contains(&reading) {
            readings.push(reading);
        }
    };
    let path = path.as_bytes();
    let (dots, unreserved, decoded) = (without_dots(path), decode(path, is_unreserved), decode(path, |_| true));
    add(merge_slashes(path));
    add(dots);
    add(without_dots(&unreserved));
    add(unreserved);
    for bare in [without_parameters(path), without_parameters(&decoded)] {
        add(without_dots(&merge_slashes(&bare)));
        add(bare);
    }
    let twice = decode(&decoded, |_| true);
    for decoded in [decoded, twice] {
        let slashes: Vec<u8> = decoded.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
        add(without_dots(&decoded));
        add(merge_slashes(&decoded));
        add(without_dots(&merge_slashes(&slashes)));
        add(slashes);
        add(decoded);
    }
    readings
}

/// True if there is but one reading.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let odd = |byte: &u8| matches!(byte, b'%' | b';' | b'\\');
    !bytes.iter().any(odd) && !bytes.windows(2).any(|pair| pair == b"//" || pair == b"/.")
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Decodes those of the encoded bytes that are to be decoded.
fn decode(path: &[u8], wanted: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        let encoded = (*first == b'%').then(|| hex(tail)).flatten().filter(|byte| wanted(*byte));
        out.push(encoded.unwrap_or(*first));
        rest = if encoded.is_some() { &tail[2..] } else { tail };
    }
    out
}

fn hex(bytes: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(*bytes.first()?)? << 4 | digit(*bytes.get(1)?)?)
}

fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut out = path.to_vec();
    out.dedup_by(|one, two| *one == b'/' && *two == b'/');
    out
}

/// Without what follows `;` in each segment.
fn without_parameters(path: &[u8]) -> Vec<u8> {
    let segment = |segment: &[u8]| segment.split(|byte| *byte == b';').next().unwrap_or_default().to_vec();
    path.split(|byte| *byte == b'/').map(segment).collect::<Vec<_>>().join(&b'/')
}

/// Without `.` and `..` (RFC 3986, 5.2.4).
fn without_dots(path: &[u8]) -> Vec<u8> {
    let segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let mut out: Vec<&[u8]> = Vec::with_capacity(segments.len());
    for (at, segment) in segments.iter().enumerate() {
        let last = at + 1 == segments.len();
        match *segment {
            b".." => {
                if out.len() > 1 {
                    out.pop();
                }
            }
            b"." => {}
            other => {
                out.push(other);
                continue;
            }
        }
        if last {
            out.push(b"");
        }
    }
    out.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_have_one_meaning() {
        for path in ["/", "/a/b?x=//..;%2e", "/a.b/c..d/e.", "*", "", "/a-b_c~d"] {
            assert_eq!(others(path), Vec::<String>::new(), "{path}");
        }
    }

    #[test]
    fn a56_every_reading_of_a_path_is_found() {
        for path in [
            "/public/../admin",
            "/public/./../admin",
            "/public/%2e%2e/admin",
            "/public/%2E./admin",
            "/public/..%2fadmin",
            "/public%2f..%2Fadmin",
            "/public/..;/admin",
            "/public/..;a=b/admin",
            "/public/..\\admin",
            "/public/..%5cadmin",
            "/public/%252e%252e/admin",
            "/public//..//../admin",
            "//admin",
            "/./admin",
            "/;x/admin",
            "/%61dmin",
            "/admin;x",
            "/../../admin",
            "/a/b/../../admin",
        ] {
            assert!(others(path).iter().any(|reading| reading == "/admin"), "{path}: {:?}", others(path));
        }
        assert!(others("/a/..?q=/x").contains(&"/?q=/x".to_owned()));
        assert!(others("/a/.").contains(&"/a/".to_owned()));
    }

    #[test]
    fn readings_are_few_and_never_the_path_itself() {
        let path = format!("/{}", "%252e%252e;/".repeat(500));
        let readings = others(&path);
        assert!(readings.len() <= 24 && !readings.contains(&path), "{}", readings.len());
    }
}
