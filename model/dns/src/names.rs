//! How are names in messages written?

use hickory_proto::rr::Name;
use l7::dns::canonical_name;

/// In canonical form: lower case, no dot at its end. What is no host name is escaped as in zone files.
pub fn canonical(name: &Name) -> String {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return canonical_name(&name.to_ascii());
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the way that takes any name.
        #[test]
        fn names_are_written_as_in_zone_files(
            labels in prop::collection::vec(prop::collection::vec(prop_oneof![9 => b'@'..=b'z', 1 => any::<u8>()], 1..9), 0..6),
        ) {
            let name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
            prop_assert_eq!(canonical(&name), canonical_name(&name.to_ascii()));
        }
    }
}
