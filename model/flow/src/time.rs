//! How are times and durations written and read? In the layouts that Hubble's users know.

use jiff::{
    Timestamp as Moment, civil,
    fmt::{rfc2822, temporal::DateTimeParser},
    tz::{Offset, TimeZone},
};

use crate::wkt::Timestamp;

/// Layout of times for printing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// `Jan _2 15:04:05.000`
    #[default]
    StampMilli,
    /// `2006-01-02`
    YearMonthDay,
    /// `2006-01-02T15Z`
    YearMonthDayHour,
    /// `2006-01-02T15:04Z`
    YearMonthDayHourMinute,
    /// `2006-01-02T15:04:05Z`
    Rfc3339,
    /// With up to three decimals.
    Rfc3339Milli,
    /// With up to six decimals.
    Rfc3339Micro,
    /// With up to nine decimals.
    Rfc3339Nano,
    /// `Mon, 02 Jan 2006 15:04:05 +0000`
    Rfc1123Z,
}

impl TimeFormat {
    /// By name in any case; unknown names mean the default, as Hubble has it.
    pub fn named(name: &str) -> Self {
        match name.to_lowercase().as_str() {
            "yearmonthday" => Self::YearMonthDay,
            "yearmonthdayhour" => Self::YearMonthDayHour,
            "yearmonthdayhourminute" => Self::YearMonthDayHourMinute,
            "rfc3339" => Self::Rfc3339,
            "rfc3339milli" => Self::Rfc3339Milli,
            "rfc3339micro" => Self::Rfc3339Micro,
            "rfc3339nano" => Self::Rfc3339Nano,
            "rfc1123z" => Self::Rfc1123Z,
            _ => Self::StampMilli,
        }
    }

    /// In UTC.
    pub fn print(self, time: Option<&Timestamp>) -> String {
        let Some(moment) = time.and_then(Timestamp::moment) else { return "N/A".to_owned() };
        let nanos = moment.subsec_nanosecond().unsigned_abs();
        let layout = |layout: &str| moment.strftime(layout).to_string();
        match self {
            Self::StampMilli => format!("{}.{:03}", layout("%b %e %H:%M:%S"), nanos / 1_000_000),
            Self::YearMonthDay => layout("%Y-%m-%d"),
            Self::YearMonthDayHour => layout("%Y-%m-%dT%HZ"),
            Self::YearMonthDayHourMinute => layout("%Y-%m-%dT%H:%MZ"),
            Self::Rfc3339 => layout("%Y-%m-%dT%H:%M:%SZ"),
            Self::Rfc3339Milli => format!("{}{}Z", layout("%Y-%m-%dT%H:%M:%S"), decimals(nanos, 3)),
            Self::Rfc3339Micro => format!("{}{}Z", layout("%Y-%m-%dT%H:%M:%S"), decimals(nanos, 6)),
            Self::Rfc3339Nano => format!("{}{}Z", layout("%Y-%m-%dT%H:%M:%S"), decimals(nanos, 9)),
            Self::Rfc1123Z => layout("%a, %d %b %Y %H:%M:%S +0000"),
        }
    }
}

/// At most `digits` decimals, cut and without trailing zeros.
fn decimals(nanos: u32, digits: usize) -> String {
    let all = format!("{nanos:09}");
    match all[..digits].trim_end_matches('0') {
        "" => String::new(),
        some => format!(".{some}"),
    }
}

/// A text that is no time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("failed to convert {0} to time: want e.g. 3s, 4m, 1h30m, 2006-01-02 or 2006-01-02T15:04:05Z")]
pub struct InvalidTime(String);

/// A duration before `now`, or a moment.
pub fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, InvalidTime> {
    if let Some(nanos) = parse_duration(text) {
        return Ok(Timestamp::from_nanos(now.as_nanos().saturating_sub(nanos)));
    }
    parse_moment(text).map(Timestamp::from).ok_or_else(|| InvalidTime(text.to_owned()))
}

fn parse_moment(text: &str) -> Option<Moment> {
    if let Ok(moment) = text.parse::<Moment>() {
        return Some(moment);
    }
    if let Ok(zoned) = rfc2822::parse(text) {
        return Some(zoned.timestamp());
    }
    let (clock, offset) = split_offset(text)?;
    let clock = match clock.len() {
        10 => format!("{clock}T00:00:00"),
        13 => format!("{clock}:00:00"),
        16 => format!("{clock}:00"),
        _ => return None,
    };
    let clock: civil::DateTime = DateTimeParser::new().parse_datetime(clock).ok()?;
    clock.to_zoned(TimeZone::fixed(offset)).ok().map(|zoned| zoned.timestamp())
}

/// A day has none; hours and minutes end in `Z` or `+02:00`.
fn split_offset(text: &str) -> Option<(&str, Offset)> {
    if text.len() == 10 {
        return Some((text, Offset::UTC));
    }
    if let Some(clock) = text.strip_suffix('Z') {
        return Some((clock, Offset::UTC));
    }
    let at = text.len().checked_sub(6)?;
    let (clock, offset) = (text.get(..at)?, text.get(at..)?);
    let sign = match offset.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = offset[1..].split_once(':')?;
    let seconds = hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60;
    Some((clock, Offset::from_seconds(sign * seconds).ok()?))
}

/// Nanoseconds of a duration as Go writes it: numbers with units `ns`, `us`, `ms`, `s`, `m`, `h`.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| end + at);
        total += number * unit(&rest[end..unit_end])?;
        rest = &rest[unit_end..];
    }
    let total = sign * total;
    (total.abs() < i64::MAX as f64).then_some(total as i64)
}

fn unit(name: &str) -> Option<f64> {
    Some(match name {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    })
}

/// A duration as Go prints it: `1h2m3.5s`, `1.5ms`, `0s`.
pub fn print_duration(nanos: u64) -> String {
    let part = |value: u64, scale: u64, digits: usize| {
        let fraction = format!("{:0digits$}", value % scale);
        match fraction.trim_end_matches('0') {
            "" => (value / scale).to_string(),
            some => format!("{}.{some}", value / scale),
        }
    };
    match nanos {
        0 => "0s".to_owned(),
        n if n > i64::MAX as u64 => format!("{n}ns"),
        n if n < 1_000 => format!("{n}ns"),
        n if n < 1_000_000 => format!("{}µs", part(n, 1_000, 3)),
        n if n < 1_000_000_000 => format!("{}ms", part(n, 1_000_000, 6)),
        n => {
            let (minutes, rest) = (n / 60_000_000_000, n % 60_000_000_000);
            let seconds = part(rest, 1_000_000_000, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn layouts() {
        let time = Timestamp::from_nanos(1_690_960_814_103_450_000); // 2023-08-02T07:20:14.10345Z
        let check = |name: &str, expected: &str| assert_eq!(TimeFormat::named(name).print(Some(&time)), expected);
        check("StampMilli", "Aug  2 07:20:14.103");
        check("nonsense", "Aug  2 07:20:14.103");
        check("YearMonthDay", "2023-08-02");
        check("YearMonthDayHour", "2023-08-02T07Z");
        check("YearMonthDayHourMinute", "2023-08-02T07:20Z");
        check("rfc3339", "2023-08-02T07:20:14Z");
        check("RFC3339Milli", "2023-08-02T07:20:14.103Z");
        check("RFC3339Micro", "2023-08-02T07:20:14.10345Z");
        check("RFC3339Nano", "2023-08-02T07:20:14.10345Z");
        check("RFC1123Z", "Wed, 02 Aug 2023 07:20:14 +0000");
        assert_eq!(TimeFormat::Rfc3339Milli.print(Some(&Timestamp::default())), "1970-01-01T00:00:00Z");
        assert_eq!(TimeFormat::StampMilli.print(None), "N/A");
    }

    #[test]
    fn relative_and_absolute_times() {
        let now = Timestamp { seconds: 1_561_989_600, nanos: 0 }; // 2019-07-01T14:00:00Z
        let check = |text: &str, expected: Option<&str>| {
            let parsed = parse_time(text, now).map(|time| TimeFormat::Rfc3339Nano.print(Some(&time)));
            assert_eq!(parsed.ok().as_deref(), expected, "{text}");
        };
        check("10s", Some("2019-07-01T13:59:50Z"));
        check("1h30m", Some("2019-07-01T12:30:00Z"));
        check("1.5s", Some("2019-07-01T13:59:58.5Z"));
        check("-1s", Some("2019-07-01T14:00:01Z"));
        check("2019-06-30", Some("2019-06-30T00:00:00Z"));
        check("2019-06-30T18Z", Some("2019-06-30T18:00:00Z"));
        check("2019-06-30T18+02:00", Some("2019-06-30T16:00:00Z"));
        check("2019-06-30T18:45+02:00", Some("2019-06-30T16:45:00Z"));
        check("2019-06-30T18:45:01.5-01:00", Some("2019-06-30T19:45:01.5Z"));
        check("Sun, 30 Jun 2019 18:00:00 +0200", Some("2019-06-30T16:00:00Z"));
        for wrong in ["", "min", "1", "3x", "2019-13-01", "2019-06-30T25Z", "2019-06-30T18", "ä", "äääääääääää"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn durations() {
        let check = |nanos: u64, expected: &str| assert_eq!(print_duration(nanos), expected);
        check(0, "0s");
        check(999, "999ns");
        check(1_500, "1.5µs");
        check(2_000_000, "2ms");
        check(1_050_000_000, "1.05s");
        check(100_000_000_000, "1m40s");
        check(3_600_000_000_000, "1h0m0s");
        check(u64::MAX, "18446744073709551615ns");
    }
}
