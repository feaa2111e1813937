//! What is the Internet checksum of some bytes (RFC 1071), and what does it become when a word changes (RFC 1624)?

/// Sum of the bytes as 16 bit words in network order, folded, on top of an earlier sum.
pub fn sum(bytes: &[u8], initial: u16) -> u16 {
    let mut total = u32::from(initial);
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        total += u32::from(u16::from_be_bytes([pair[0], low]));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The checksum of these bytes, in which the checksum's own field counts as it stands.
pub fn checksum(bytes: &[u8], initial: u16) -> u16 {
    !sum(bytes, initial)
}

/// The checksum after a change of some words, given in host order: equation 3 of RFC 1624.
pub fn update(checksum: u16, from: &[u16], to: &[u16]) -> u16 {
    let mut total = u32::from(!checksum);
    for word in from {
        total += u32::from(!word);
    }
    for word in to {
        total += u32::from(*word);
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 1624, section 4: 0xdd2f, a word of 0x5555 becomes 0x3285
        assert_eq!(update(0xdd2f, &[0x5555], &[0x3285]), 0x0000);
    }

    proptest::proptest! {
        #[test]
        fn an_update_is_what_summing_anew_gives(mut bytes in proptest::collection::vec(1u8.., 4..64), at in 0usize..32, to: u16) {
            let at = (at * 2) % (bytes.len() / 2 * 2);
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            let before = checksum(&bytes, 0);
            bytes[at..at + 2].copy_from_slice(&to.to_be_bytes());
            let (updated, fresh) = (update(before, &[old], &[to]), checksum(&bytes, 0));
            // both zeros of one's complement mean the same
            proptest::prop_assert_eq!(updated % 0xffff, fresh % 0xffff);
        }
    }
}
