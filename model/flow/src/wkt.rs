//! How do protobuf's well-known types look in Rust and in JSON?

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Error as _, MapAccess, Visitor},
    ser::{Error as _, SerializeMap},
};

/// A moment: seconds and nanoseconds since 1970 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds within the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// From nanoseconds since 1970.
    pub fn from_nanos(nanos: i64) -> Self {
        Self { seconds: nanos.div_euclid(1_000_000_000), nanos: nanos.rem_euclid(1_000_000_000) as i32 }
    }

    /// Nanoseconds since 1970; moments out of reach become the nearest reachable one.
    pub fn as_nanos(&self) -> i64 {
        self.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nanos))
    }

    /// None unless it is a moment that the calendar of protobuf knows (years 1 to 9999).
    pub fn moment(&self) -> Option<jiff::Timestamp> {
        let in_calendar = (-62_135_596_800..=253_402_300_799).contains(&self.seconds);
        if !in_calendar || !(0..1_000_000_000).contains(&self.nanos) {
            return None;
        }
        jiff::Timestamp::new(self.seconds, self.nanos).ok()
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(moment: jiff::Timestamp) -> Self {
        let (mut seconds, mut nanos) = (moment.as_second(), moment.subsec_nanosecond());
        if nanos < 0 {
            (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
        }
        Self { seconds, nanos }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let moment = self
            .moment()
            .ok_or_else(|| S::Error::custom(format!("{self:?} is out of range: years 1 to 9999 can be printed")))?;
        let whole = moment.strftime("%Y-%m-%dT%H:%M:%S");
        match self.nanos {
            0 => serializer.collect_str(&format_args!("{whole}Z")),
            n if n % 1_000_000 == 0 => serializer.collect_str(&format_args!("{whole}.{:03}Z", n / 1_000_000)),
            n if n % 1_000 == 0 => serializer.collect_str(&format_args!("{whole}.{:06}Z", n / 1_000)),
            n => serializer.collect_str(&format_args!("{whole}.{n:09}Z")),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let moment: jiff::Timestamp = text
            .parse()
            .map_err(|error| D::Error::custom(format!("{text:?} is no time as 2006-01-02T15:04:05Z: {error}")))?;
        Ok(moment.into())
    }
}

macro_rules! wrappers {
    ($($(#[$doc:meta])* $name:ident $kind:ident $type:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
        pub struct $name {
            /// What is wrapped.
            #[prost($kind, tag = "1")]
            pub value: $type,
        }

        impl From<$type> for $name {
            fn from(value: $type) -> Self {
                Self { value }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.value.serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <$type>::deserialize(deserializer).map(Self::from)
            }
        }
    )*};
}

wrappers! {
    /// A truth value that may be absent.
    BoolValue bool bool;
    /// A number that may be absent.
    Int32Value int32 i32;
    /// A number that may be absent.
    UInt32Value uint32 u32;
}

/// Names of wanted fields.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct FieldMask {
    /// Dotted paths of field names.
    #[prost(string, repeated, tag = "1")]
    pub paths: Vec<String>,
}

impl Serialize for FieldMask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.paths.join(","))
    }
}

impl<'de> Deserialize<'de> for FieldMask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self { paths: text.split(',').filter(|path| !path.is_empty()).map(str::to_owned).collect() })
    }
}

/// A message of a kind that this crate does not know, carried along.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Any {
    /// What kind of message it is.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

impl Serialize for Any {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("@type", &self.type_url)?;
        map.serialize_entry("value", &BASE64_STANDARD.encode(&self.value))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnyVisitor)
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Any;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with @type and value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Any, A::Error> {
        let mut any = Any::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "@type" => any.type_url = map.next_value()?,
                "value" => {
                    let text: String = map.next_value()?;
                    any.value = BASE64_STANDARD.decode(&text).map_err(A::Error::custom)?;
                }
                _ => {
                    map.next_value::<de::IgnoredAny>()?;
                }
            }
        }
        Ok(any)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(nanos: i64, expected: &str) {
        let json = serde_json::to_string(&Timestamp::from_nanos(nanos)).unwrap();
        assert_eq!(json, format!("\"{expected}\""));
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap().as_nanos(), nanos);
    }

    #[test]
    fn times_have_no_three_six_or_nine_decimals() {
        check(1_714_253_764_373_296_596, "2024-04-27T21:36:04.373296596Z");
        check(1_714_253_764_373_296_000, "2024-04-27T21:36:04.373296Z");
        check(1_714_253_764_300_000_000, "2024-04-27T21:36:04.300Z");
        check(1_714_253_764_000_000_000, "2024-04-27T21:36:04Z");
        check(-1, "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn impossible_times_are_errors() {
        for time in [Timestamp { seconds: i64::MAX, nanos: 0 }, Timestamp { seconds: 0, nanos: -1 }] {
            assert!(serde_json::to_string(&time).is_err());
            assert_eq!(time.moment(), None);
        }
    }
}
