//! How is a flow read that is judged at once and then forgotten?

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::case::Flow;

/// A flow as it stands in the text that it was read from. What is not plain (unknown fields, nulls) is refused: then
/// [`Flow`] says what it is, or what is wrong with it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowRef<'a> {
    /// What its result is called.
    #[serde(borrow, deserialize_with = "scalar")]
    pub id: Cow<'a, str>,
    /// Who sends.
    #[serde(borrow)]
    pub src: Cow<'a, str>,
    /// Who receives.
    #[serde(borrow)]
    pub dst: Cow<'a, str>,
    /// Protocol by name or number; TCP if empty.
    #[serde(borrow, deserialize_with = "scalar")]
    pub proto: Cow<'a, str>,
    /// Destination port.
    pub port: u16,
    /// Message type of ICMP and ICMPv6.
    pub icmp_type: Option<u8>,
    /// both, egress or ingress.
    #[serde(borrow)]
    pub direction: Cow<'a, str>,
    /// The packet is one of IPv6.
    pub ipv6: bool,
}

impl Flow {
    /// The same, lent.
    pub fn by_ref(&self) -> FlowRef<'_> {
        FlowRef {
            id: Cow::Borrowed(&self.id),
            src: Cow::Borrowed(&self.src),
            dst: Cow::Borrowed(&self.dst),
            proto: Cow::Borrowed(&self.proto),
            port: self.port,
            icmp_type: self.icmp_type,
            direction: Cow::Borrowed(&self.direction),
            ipv6: self.ipv6,
        }
    }
}

/// A case whose flows are plain: its other fields, and the flows.
pub struct Split<'a> {
    /// What is no flow.
    pub rest: Map<String, Value>,
    /// The flows.
    pub flows: Vec<FlowRef<'a>>,
}

impl<'de> Deserialize<'de> for Split<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Split<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a case")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Split<'de>, A::Error> {
                let mut split = Split { rest: Map::new(), flows: Vec::new() };
                while let Some(name) = fields.next_key::<String>()? {
                    if name == "flows" {
                        split.flows = fields.next_value()?;
                    } else {
                        split.rest.insert(name, fields.next_value()?);
                    }
                }
                Ok(split)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A text, or a number or truth value as it is written.
fn scalar<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    struct Scalar;
    impl<'de> Visitor<'de> for Scalar {
        type Value = Cow<'de, str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }

        fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(if value { "true" } else { "false" }))
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Cow::Owned(Value::from(number).to_string()))
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
            Ok(Cow::Owned(Value::from(number).to_string()))
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
            Ok(Cow::Owned(Value::from(number).to_string()))
        }
    }
    deserializer.deserialize_any(Scalar)
}
