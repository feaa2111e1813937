//! Until when is a call of gRPC waited for?
//!
//! As Cilium sets Envoy (`grpc_timeout_header_max`): the client's own deadline ends the call here too, and is no later
//! than `http-max-grpc-timeout`; a call without a deadline may last.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// `grpc-timeout` of gRPC's "PROTOCOL-HTTP2".
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// What a client of gRPC is told when it has come (`DEADLINE_EXCEEDED`).
pub const EXCEEDED: &str = "4";
/// The most digits that a value may have.
const DIGITS: usize = 8;

/// How long a call with these headers may last; `None`: for ever. If that is less than the client wants, the server
/// is told so. `most` 0: as long as the client wants.
pub fn of(headers: &mut HeaderMap, most: u64) -> Option<Duration> {
    let wanted = read(headers.get(TIMEOUT)?.to_str().ok()?)?;
    let most = Duration::from_millis(most);
    if most.is_zero() || wanted <= most {
        return Some(wanted);
    }
    if let Ok(value) = HeaderValue::from_str(&written(most)) {
        headers.insert(TIMEOUT, value);
    }
    Some(most)
}

fn read(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// In the smallest unit that has room for it.
fn written(time: Duration) -> String {
    let units = [(time.as_millis(), 'm'), (time.as_secs().into(), 'S'), (time.as_secs().div_euclid(60).into(), 'M')];
    let fits = units.into_iter().map(|(number, unit)| format!("{number}{unit}")).find(|text| text.len() <= DIGITS + 1);
    fits.unwrap_or_else(|| format!("{}H", time.as_secs() / 3_600))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, most: u64, expected: Option<u64>, told: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(TIMEOUT, HeaderValue::from_str(value).expect("a value"));
        assert_eq!(of(&mut headers, most), expected.map(Duration::from_millis), "{value} at most {most}");
        assert_eq!(headers[TIMEOUT], told);
    }

    #[test]
    fn a_client_s_deadline_counts_as_far_as_it_may() {
        check("250m", 0, Some(250), "250m");
        check("3S", 5_000, Some(3_000), "3S");
        check("1H", 5_000, Some(5_000), "5000m");
        check("2M", 0, Some(120_000), "2M");
        check("7000u", 0, Some(7), "7000u");
        check("99999999n", 10, Some(10), "10m");
        check("99999999H", 4_294_967_295_000, Some(4_294_967_295_000), "71582788M");
        assert_eq!(of(&mut HeaderMap::new(), 5_000), None, "there is none without the client's");
    }

    #[test]
    fn what_is_no_deadline_is_none_and_goes_on() {
        for value in ["", "m", "5", "-5m", "+5m", "123456789m", "5 m", "5x", "1.5S"] {
            check(value, 5_000, None, value);
        }
    }
}
