//! Which versions does a client learn of? Those that are read here: in later ones topics are numbers, not names.

use super::apis::by_key;
use super::request::Malformed;
use super::walk::Reader;

/// Kafka's error for a version that the broker does not know. The rest is laid out as in version 0 then.
const UNSUPPORTED_VERSION: i16 = 35;

/// The first version with tagged fields.
const FLEXIBLE: i16 = 3;

/// A broker's answer to an ApiVersions request of this version, behind its correlation, with the versions that are read
/// here and no others. Kinds that are not known stay if `unknown`.
pub fn offer(answer: &[u8], version: i16, unknown: bool) -> Result<Vec<u8>, Malformed> {
    let mut reader = Reader::new(answer);
    let error = reader.i16()?;
    let compact = version >= FLEXIBLE && error != UNSUPPORTED_VERSION;
    let count = reader.count(compact)?.ok_or(Malformed::Within)?;
    let (mut kept, mut entries) = (0u32, Vec::new());
    for _ in 0..count {
        let (key, first, last) = (reader.i16()?, reader.i16()?, reader.i16()?);
        let tags = reader.rest();
        if compact {
            reader.tags()?;
        }
        let tags = &tags[..tags.len() - reader.rest().len()];
        let (first, last) = match by_key(key) {
            Some(api) => (first.max(api.first), last.min(api.last)),
            None if unknown => (first, last),
            None => continue,
        };
        if first > last {
            continue;
        }
        for number in [key, first, last] {
            entries.extend_from_slice(&number.to_be_bytes());
        }
        entries.extend_from_slice(tags);
        kept += 1;
    }
    let mut told = error.to_be_bytes().to_vec();
    if compact {
        put_varint(&mut told, kept.saturating_add(1));
    } else {
        told.extend_from_slice(&kept.to_be_bytes());
    }
    told.extend_from_slice(&entries);
    told.extend_from_slice(reader.rest());
    Ok(told)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}
