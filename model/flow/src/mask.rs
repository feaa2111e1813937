//! Which fields of a flow does the asker want? The others are left out.

use std::collections::BTreeMap;

use prost::{Message, encoding::WireType};
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};

use crate::proto::{self, flow::Flow};

/// A path that names no field.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid field mask: {path:?} is no field of a flow: {why}")]
pub struct MaskError {
    /// The path as it was asked.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

/// Who asks for these is about to print lines. The mask that `hubble` asks for by itself lacks the direction that a
/// policy verdict's line shows (1.19.4 prints `TRAFFIC_DIRECTION_UNKNOWN`), so it comes along.
const LINE: [&str; 3] = ["event_type", "is_reply", "Summary"];

/// The wanted fields.
#[derive(Clone, Debug)]
pub struct Mask {
    /// For each field of a flow in the order of [`FIELDS`].
    keep: Vec<Keep>,
}

#[derive(Clone, Debug)]
enum Keep {
    Nothing,
    Everything,
    Some(Tree),
}

/// Wanted fields of a message by their numbers; None: whole.
#[derive(Clone, Debug, Default)]
struct Tree {
    fields: BTreeMap<u32, Option<Tree>>,
}

impl Mask {
    /// None if there are no paths, which means everything.
    pub fn new(paths: &[String]) -> Result<Option<Self>, MaskError> {
        if paths.is_empty() {
            return Ok(None);
        }
        let types = Types::load();
        let mut tree = Tree::default();
        for path in paths {
            types.add(&mut tree, path)?;
        }
        if LINE.iter().all(|name| tree.fields.contains_key(&types.number(name))) {
            types.add(&mut tree, "traffic_direction")?;
        }
        let keep = FIELDS.iter().map(|name| match tree.fields.get(&types.number(name)) {
            None => Keep::Nothing,
            Some(None) => Keep::Everything,
            Some(Some(tree)) => Keep::Some(tree.clone()),
        });
        Ok(Some(Self { keep: keep.collect() }))
    }

    /// Removes what is not wanted.
    pub fn apply(&self, flow: &mut Flow) {
        apply(&self.keep, flow);
    }
}

/// Removes all but the wanted part of a field.
trait Cut: Default {
    fn cut(&mut self, tree: &Tree);
}

impl<M: Message + Default> Cut for Option<M> {
    fn cut(&mut self, tree: &Tree) {
        if let Some(message) = self {
            *message = M::decode(strip(&message.encode_to_vec(), tree).as_slice()).unwrap_or_default();
        }
    }
}

macro_rules! whole {
    ($($type:ty),*) => {$(
        impl Cut for $type {
            /// Has no parts that a path could name.
            fn cut(&mut self, _: &Tree) {}
        }
    )*};
}

whole!(String, u32, u64, i32, bool, Vec<String>, Vec<proto::flow::Policy>);

macro_rules! fields {
    ($($name:literal $field:ident,)*) => {
        const FIELDS: &[&str] = &[$($name),*];

        #[allow(deprecated)]
        fn apply(keep: &[Keep], flow: &mut Flow) {
            let mut keep = keep.iter();
            $(match keep.next() {
                Some(Keep::Everything) => {}
                Some(Keep::Some(tree)) => flow.$field.cut(tree),
                Some(Keep::Nothing) | None => flow.$field = Default::default(),
            })*
        }
    };
}

fields! {
    "time" time,
    "uuid" uuid,
    "emitter" emitter,
    "verdict" verdict,
    "drop_reason" drop_reason,
    "auth_type" auth_type,
    "ethernet" ethernet,
    "IP" ip,
    "l4" l4,
    "tunnel" tunnel,
    "source" source,
    "destination" destination,
    "Type" r#type,
    "node_name" node_name,
    "node_labels" node_labels,
    "source_names" source_names,
    "destination_names" destination_names,
    "l7" l7,
    "reply" reply,
    "event_type" event_type,
    "source_service" source_service,
    "destination_service" destination_service,
    "traffic_direction" traffic_direction,
    "policy_match_type" policy_match_type,
    "trace_observation_point" trace_observation_point,
    "trace_reason" trace_reason,
    "file" file,
    "ip_trace_id" ip_trace_id,
    "drop_reason_desc" drop_reason_desc,
    "is_reply" is_reply,
    "debug_capture_point" debug_capture_point,
    "interface" interface,
    "proxy_port" proxy_port,
    "trace_context" trace_context,
    "sock_xlate_point" sock_xlate_point,
    "socket_cookie" socket_cookie,
    "cgroup_id" cgroup_id,
    "Summary" summary,
    "extensions" extensions,
    "egress_allowed_by" egress_allowed_by,
    "ingress_allowed_by" ingress_allowed_by,
    "egress_denied_by" egress_denied_by,
    "ingress_denied_by" ingress_denied_by,
    "policy_log" policy_log,
    "aggregate" aggregate,
}

/// Copies the wanted fields of an encoded message.
fn strip(mut bytes: &[u8], tree: &Tree) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    while let Some((field, rest)) = next_field(bytes) {
        match tree.fields.get(&field.number) {
            None => {}
            Some(Some(inner)) if field.wire == WireType::LengthDelimited => {
                let part = strip(field.payload, inner);
                prost::encoding::encode_key(field.number, WireType::LengthDelimited, &mut out);
                prost::encoding::encode_varint(part.len() as u64, &mut out);
                out.extend_from_slice(&part);
            }
            Some(_) => out.extend_from_slice(&bytes[..bytes.len() - rest.len()]),
        }
        bytes = rest;
    }
    out
}

struct Field<'a> {
    number: u32,
    wire: WireType,
    /// Of length-delimited fields.
    payload: &'a [u8],
}

fn next_field(bytes: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let mut rest = bytes;
    let (number, wire) = prost::encoding::decode_key(&mut rest).ok()?;
    let length = match wire {
        WireType::Varint => {
            prost::encoding::decode_varint(&mut rest).ok()?;
            0
        }
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::LengthDelimited => usize::try_from(prost::encoding::decode_varint(&mut rest).ok()?).ok()?,
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((Field { number, wire, payload }, rest))
}

/// The messages of the package `flow` by their full names.
struct Types {
    messages: BTreeMap<String, DescriptorProto>,
}

const FLOW: &str = ".flow.Flow";

impl Types {
    fn load() -> Self {
        let set = FileDescriptorSet::decode(proto::DESCRIPTORS).expect("compiled in by the build script");
        let mut types = Types { messages: BTreeMap::new() };
        for file in set.file {
            let package = format!(".{}", file.package());
            file.message_type.into_iter().for_each(|message| types.insert(&package, message));
        }
        types
    }

    fn insert(&mut self, parent: &str, message: DescriptorProto) {
        let name = format!("{parent}.{}", message.name());
        message.nested_type.iter().for_each(|nested| self.insert(&name, nested.clone()));
        self.messages.insert(name, message);
    }

    /// Number of a field of a flow.
    fn number(&self, name: &str) -> u32 {
        let found = self.messages[FLOW].field.iter().find(|field| field.name() == name);
        found.expect("names of FIELDS are those of the message").number() as u32
    }

    /// A wider path that was asked before or later wins over a narrower one.
    fn add(&self, tree: &mut Tree, path: &str) -> Result<(), MaskError> {
        let error = |why: String| MaskError { path: path.to_owned(), why };
        let mut message = &self.messages[FLOW];
        let mut tree = tree;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let field = message.field.iter().find(|field| field.name() == name);
            let field = field.ok_or_else(|| error(format!("{} has no field {name:?}", message.name())))?;
            let number = field.number() as u32;
            if names.peek().is_none() {
                tree.fields.insert(number, None);
                return Ok(());
            }
            let is_list = field.label() == prost_types::field_descriptor_proto::Label::Repeated;
            if field.r#type() != Type::Message || is_list {
                return Err(error(format!("{name:?} is not a message")));
            }
            message = self
                .messages
                .get(field.type_name())
                .ok_or_else(|| error(format!("{name:?} has no fields of its own")))?;
            match tree.fields.entry(number).or_insert_with(|| Some(Tree::default())) {
                None => return Ok(()),
                Some(inner) => tree = inner,
            }
        }
        Err(error("it is empty".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const FLOW_JSON: &str = r#"{"uuid":"u","verdict":"DROPPED","IP":{"source":"1.1.1.1","destination":"2.2.2.2"},
        "l4":{"TCP":{"source_port":1,"destination_port":2,"flags":{"SYN":true,"ACK":true}}},
        "traffic_direction":"EGRESS","source":{"ID":7,"identity":8,"labels":["a=b","c=d"],"pod_name":"p"},"event_type":{"type":1,"sub_type":133},
        "socket_cookie":"99","egress_denied_by":[{"name":"n","kind":"k"}],"Summary":"s"}"#;

    #[track_caller]
    fn check(paths: &[&str], expected: &str) {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let mut flow: Flow = serde_json::from_str(FLOW_JSON).unwrap();
        if let Some(mask) = Mask::new(&paths).unwrap() {
            mask.apply(&mut flow);
        }
        let expected: Flow = serde_json::from_str(expected).unwrap();
        assert_eq!(flow, expected, "{paths:?}");
    }

    #[test]
    fn only_wanted_fields_stay() {
        check(&[], FLOW_JSON);
        check(&["uuid", "verdict"], r#"{"uuid":"u","verdict":"DROPPED"}"#);
        check(&["source.labels", "source.ID"], r#"{"source":{"ID":7,"labels":["a=b","c=d"]}}"#);
        check(&["source", "source.ID"], r#"{"source":{"ID":7,"identity":8,"labels":["a=b","c=d"],"pod_name":"p"}}"#);
        check(&["IP.source", "IP"], r#"{"IP":{"source":"1.1.1.1","destination":"2.2.2.2"}}"#);
        check(&["l4.TCP.flags.SYN"], r#"{"l4":{"TCP":{"flags":{"SYN":true}}}}"#);
        check(&["l4.UDP.source_port"], r#"{"l4":{}}"#);
        check(&["egress_denied_by", "Summary"], r#"{"egress_denied_by":[{"name":"n","kind":"k"}],"Summary":"s"}"#);
        check(&["destination.ID", "socket_cookie"], r#"{"socket_cookie":"99"}"#);
    }

    #[test]
    fn lines_have_a_direction() {
        check(
            &["event_type", "is_reply", "Summary"],
            r#"{"event_type":{"type":1,"sub_type":133},"Summary":"s","traffic_direction":"EGRESS"}"#,
        );
        check(&["event_type", "Summary"], r#"{"event_type":{"type":1,"sub_type":133},"Summary":"s"}"#);
    }

    #[test]
    fn unknown_paths_are_errors() {
        for path in ["", "nope", "source.nope", "uuid.x", "egress_denied_by.name", "source."] {
            assert!(Mask::new(&[path.to_owned()]).is_err(), "{path}");
        }
    }

    /// So that no field that is added to the message is forgotten here.
    #[test]
    fn all_fields_of_a_flow_are_known() {
        let mut names: Vec<_> = Types::load().messages[FLOW].field.iter().map(|f| f.name().to_owned()).collect();
        let mut known: Vec<_> = FIELDS.iter().map(|name| (*name).to_owned()).collect();
        names.sort();
        known.sort();
        assert_eq!(known, names);
    }
}
