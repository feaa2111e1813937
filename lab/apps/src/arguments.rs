//! What do a program's words say?

use crate::Error;

/// The value of an option, written `--name value`, `--name=value` or with one dash; none if it is absent.
pub fn option(args: &[String], name: &str) -> Option<String> {
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let bare = word.trim_start_matches('-');
        if bare.len() == word.len() {
            continue;
        }
        match bare.split_once('=') {
            Some((key, value)) if key == name => return Some(value.to_string()),
            None if bare == name => return words.next().cloned(),
            _ => {}
        }
    }
    None
}

/// Ports as `80,443`.
pub fn ports(text: &str) -> Result<Vec<u16>, Error> {
    let mut ports = Vec::new();
    for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        match word.parse::<u16>() {
            Ok(port) if port > 0 => ports.push(port),
            _ => return Err(Error::Usage(format!("{word:?} is not a port (1 to 65535)"))),
        }
    }
    ports.sort_unstable();
    ports.dedup();
    if ports.is_empty() { Err(Error::Usage("no port given".into())) } else { Ok(ports) }
}

/// One port: the option `name`, else the first argument if it is a number, else `default`.
pub fn port(args: &[String], name: &str, default: u16) -> Result<u16, Error> {
    let first = args.first().filter(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_digit())).cloned();
    let Some(text) = option(args, name).or(first) else { return Ok(default) };
    match ports(&text)?.as_slice() {
        [port] => Ok(*port),
        several => Err(Error::Usage(format!("{name}: one port is needed, not {several:?}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(String::from).collect()
    }

    #[test]
    fn options_are_found_in_every_spelling() {
        for text in ["-text=hi -listen :80", "--listen :80 --text hi", "x --text=hi"] {
            assert_eq!(option(&words(text), "text").as_deref(), Some("hi"), "{text}");
        }
        assert_eq!(option(&words("text hi"), "text"), None);
        assert_eq!(option(&words("--text"), "text"), None);
    }

    #[test]
    fn ports_are_numbers_from_1() {
        assert_eq!(ports("443, 80,80").unwrap(), [80, 443]);
        for wrong in ["", "0", "80,http", "65536", "-1"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
        assert_eq!(port(&words("9080"), "port", 1).unwrap(), 9080);
        assert_eq!(port(&words("--port 81"), "port", 1).unwrap(), 81);
        assert_eq!(port(&[], "port", 1).unwrap(), 1);
    }
}
