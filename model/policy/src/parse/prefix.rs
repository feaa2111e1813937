//! How are prefixes and addresses written?

use std::net::IpAddr;

use ipnet::IpNet;

/// A prefix as Go's `netip.ParsePrefix` reads it: no number has a leading zero, which some read as octal. Host bits are
/// cut off.
pub fn parse_prefix(text: &str) -> Option<IpNet> {
    let (address, bits) = text.split_once('/')?;
    let leading_zero = bits.len() > 1 && bits.starts_with('0');
    if leading_zero || !bits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    IpNet::new(address.parse().ok()?, bits.parse().ok()?).ok().map(|prefix| prefix.trunc())
}

/// The same, or a single address, which is the prefix of all its bits.
pub fn parse_prefix_or_address(text: &str) -> Option<IpNet> {
    parse_prefix(text).or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_with_leading_zeros_are_no_prefixes() {
        for wrong in
            ["10.0.0.0/08", "010.0.0.0/8", "10.0.0.0/+8", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0", "x/8"]
        {
            assert_eq!(parse_prefix(wrong), None, "{wrong}");
        }
        for (text, prefix) in
            [("10.1.2.3/8", "10.0.0.0/8"), ("0.0.0.0/0", "0.0.0.0/0"), ("2001:db8::1/32", "2001:db8::/32")]
        {
            assert_eq!(parse_prefix(text).unwrap().to_string(), prefix);
            assert_eq!(parse_prefix_or_address(text), parse_prefix(text));
        }
        assert_eq!(parse_prefix_or_address("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(parse_prefix_or_address("::1").unwrap().to_string(), "::1/128");
        assert_eq!(parse_prefix_or_address("010.0.0.1"), None);
    }
}
