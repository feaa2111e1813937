//! Is the name found however a hello comes, and nothing else taken for one?
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn list16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &list16(value)].concat()
}

fn named(name: &[u8]) -> Vec<u8> {
    extension(0, &list16(&[&[0][..], &list16(name)].concat()))
}

/// A hello with these extensions, as one handshake message.
fn message(extensions: &[u8]) -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[32], &[9; 32], &list16(&[0x13, 1]), &[1, 0], &list16(extensions)].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1][..], &length[1..], &body].concat()
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &list16(part)].concat()).collect()
}

fn name_of(bytes: &[u8]) -> Option<String> {
    match client_hello(bytes).unwrap() {
        Progress::Whole(hello) => hello.server_name,
        Progress::Needs(count) => panic!("needs {count} of {}", bytes.len()),
    }
}

#[test]
fn a63_a_hello_may_come_in_several_records_and_pieces() {
    // As long as with a post-quantum key share.
    let message = message(&[extension(51, &[5; 1_216]), named(b"Www.Example.com"), extension(0xfe0d, &[1])].concat());
    for size in [100, 517, 1_400, 16_000] {
        let bytes = records(&message, size);
        assert_eq!(name_of(&bytes).as_deref(), Some("www.example.com"));
        for end in 0..bytes.len() {
            match client_hello(&bytes[..end]).unwrap() {
                Progress::Needs(count) => assert!(count > end && count <= bytes.len(), "{end}: {count}"),
                Progress::Whole(_) => panic!("{end} of {} are not whole", bytes.len()),
            }
        }
    }
}

#[test]
fn a63_names_that_are_none_are_refused() {
    for name in [&b"a\0b.example.com"[..], b"", b"a..b", b".a", b"a.", b"a b", b"a*b", b"\xff", &[b'a'; 256]] {
        assert_eq!(client_hello(&records(&message(&named(name)), 9_999)), Err(HelloError::Name), "{name:?}");
    }
    let two = [named(b"a"), named(b"b")].concat();
    assert_eq!(client_hello(&records(&message(&two), 9_999)), Err(HelloError::Malformed));
    let both = extension(0, &list16(&[&[0][..], &list16(b"a"), &[0], &list16(b"b")].concat()));
    assert_eq!(client_hello(&records(&message(&both), 9_999)), Err(HelloError::Name));
}

#[test]
fn a63_a_hello_may_have_no_name() {
    assert_eq!(name_of(&records(&message(&[]), 9_999)), None);
    let alpn = extension(16, &list16(b"\x02h2\x08http/1.1"));
    match client_hello(&records(&message(&alpn), 9_999)).unwrap() {
        Progress::Whole(hello) => assert_eq!(hello.protocols, [&b"h2"[..], b"http/1.1"]),
        Progress::Needs(_) => panic!(),
    }
}

#[test]
fn what_is_no_handshake_is_seen_at_once() {
    for bytes in [&b"G"[..], b"\x17", b"\x16\x02", b"\x16\x03\x01\x00\x00", b"\x16\x03\x01\xff\xff", b"\x80\x2e\x01"] {
        assert_eq!(client_hello(bytes), Err(HelloError::NotTls), "{bytes:?}");
    }
    assert_eq!(client_hello(&records(&[2, 0, 0, 1, 0], 9)), Err(HelloError::NotTls));
    assert_eq!(client_hello(&records(&[1, 9, 0, 0], 9)), Err(HelloError::TooLong));
    assert_eq!(client_hello(&records(&message(&named(b"a")), 1)), Err(HelloError::TooLong));
}

proptest! {
    #[test]
    fn no_bytes_stop_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200), extensions in any::<bool>()) {
        let bytes = if extensions { records(&message(&bytes), 50) } else { bytes };
        let _ = client_hello(&bytes);
    }

    #[test]
    fn a_broken_hello_is_never_taken_for_another_name(at in 0usize..140, flip in 1u8..) {
        let mut bytes = records(&message(&[named(b"good.example"), extension(16, &[0, 3, 2, b'h', b'2'])].concat()), 60);
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Ok(Progress::Whole(hello)) = client_hello(&bytes)
            && let Some(name) = hello.server_name
        {
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
        }
    }
}
