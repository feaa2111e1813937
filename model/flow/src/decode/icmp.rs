//! What is an ICMP message called? Names as Hubble prints them.

/// Name of a type and, where the type has codes, its code.
pub(super) fn name_v4(kind: u8, code: u8) -> String {
    let codes: &[&str] = match kind {
        3 => &UNREACHABLE_V4,
        5 => &["Net", "Host", "TOS+Net", "TOS+Host"],
        11 => &["TTLExceeded", "FragmentReassemblyTimeExceeded"],
        12 => &["PointerIndicatesError", "MissingOption", "BadLength"],
        _ => &[],
    };
    let name = match kind {
        0 => "EchoReply",
        3 => "DestinationUnreachable",
        4 => "SourceQuench",
        5 => "Redirect",
        8 => "EchoRequest",
        9 => "RouterAdvertisement",
        10 => "RouterSolicitation",
        11 => "TimeExceeded",
        12 => "ParameterProblem",
        13 => "TimestampRequest",
        14 => "TimestampReply",
        15 => "InfoRequest",
        16 => "InfoReply",
        17 => "AddressMaskRequest",
        18 => "AddressMaskReply",
        _ => return format!("{kind}({code})"),
    };
    with_code(name, codes, code)
}

const UNREACHABLE_V4: [&str; 16] = [
    "Net",
    "Host",
    "Protocol",
    "Port",
    "FragmentationNeeded",
    "SourceRoutingFailed",
    "NetUnknown",
    "HostUnknown",
    "SourceIsolated",
    "NetAdminProhibited",
    "HostAdminProhibited",
    "NetTOS",
    "HostTOS",
    "CommAdminProhibited",
    "HostPrecedence",
    "PrecedenceCutoff",
];

/// See [`name_v4`].
pub(super) fn name_v6(kind: u8, code: u8) -> String {
    let codes: &[&str] = match kind {
        1 => &UNREACHABLE_V6,
        3 => &["HopLimitExceeded", "FragmentReassemblyTimeExceeded"],
        4 => &["ErroneousHeaderField", "UnrecognizedNextHeader", "UnrecognizedNextHeader"],
        _ => &[],
    };
    let name = match kind {
        1 => "DestinationUnreachable",
        2 => "PacketTooBig",
        3 => "TimeExceeded",
        4 => "ParameterProblem",
        128 => "EchoRequest",
        129 => "EchoReply",
        133 => "RouterSolicitation",
        134 => "RouterAdvertisement",
        135 => "NeighborSolicitation",
        136 => "NeighborAdvertisement",
        137 => "Redirect",
        _ => return format!("{kind}({code})"),
    };
    with_code(name, codes, code)
}

const UNREACHABLE_V6: [&str; 7] = [
    "NoRouteToDst",
    "AdminProhibited",
    "BeyondScopeOfSrc",
    "AddressUnreachable",
    "PortUnreachable",
    "SrcAddressFailedPolicy",
    "RejectRouteToDst",
];

fn with_code(name: &str, codes: &[&str], code: u8) -> String {
    match (codes.get(usize::from(code)), codes.is_empty(), code) {
        (Some(text), _, _) => format!("{name}({text})"),
        (None, true, 0) => name.to_owned(),
        (None, _, _) => format!("{name}(Code: {code})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_messages() {
        assert_eq!(name_v4(8, 0), "EchoRequest");
        assert_eq!(name_v4(8, 7), "EchoRequest(Code: 7)");
        assert_eq!(name_v4(3, 3), "DestinationUnreachable(Port)");
        assert_eq!(name_v4(3, 200), "DestinationUnreachable(Code: 200)");
        assert_eq!(name_v4(99, 1), "99(1)");
        assert_eq!(name_v6(133, 0), "RouterSolicitation");
        assert_eq!(name_v6(1, 4), "DestinationUnreachable(PortUnreachable)");
        assert_eq!(name_v6(4, 2), "ParameterProblem(UnrecognizedNextHeader)");
        assert_eq!(name_v6(143, 0), "143(0)");
    }
}
