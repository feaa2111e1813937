//! Is an address among wanted addresses and prefixes?

use std::net::IpAddr;

use ipnet::IpNet;

use super::FilterError;

pub(super) struct AddressSet {
    addresses: Vec<String>,
    prefixes: Vec<IpNet>,
}

impl AddressSet {
    pub(super) fn contains(&self, address: &str) -> bool {
        if address.is_empty() {
            return false;
        }
        if self.addresses.iter().any(|wanted| wanted == address) {
            return true;
        }
        match address.parse::<IpAddr>() {
            Ok(address) => self.prefixes.iter().any(|prefix| prefix.contains(&address)),
            Err(_) => false,
        }
    }
}

pub(super) fn compile(texts: &[String]) -> Result<AddressSet, FilterError> {
    let mut set = AddressSet { addresses: Vec::new(), prefixes: Vec::new() };
    for text in texts {
        if text.contains('/') {
            set.prefixes.push(text.parse().map_err(|_| FilterError::Address { kind: "prefix", text: text.clone() })?);
        } else {
            let address: IpAddr =
                text.parse().map_err(|_| FilterError::Address { kind: "address", text: text.clone() })?;
            // The usual form, because flows are compared as text.
            set.addresses.push(address.to_string());
        }
    }
    Ok(set)
}
