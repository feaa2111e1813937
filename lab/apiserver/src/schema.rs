//! Which fields has a kind, of which types, and how do lists and maps of it merge?

pub mod builtin;
pub mod check;
pub mod custom;
pub mod fill;
pub mod prune;
pub mod wire;

use indexmap::IndexMap;
use serde_json::Value;

/// The type of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    #[default]
    Any,
}

impl Type {
    /// Its name in OpenAPI; nothing for those that OpenAPI has no type for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString | Self::Any => "",
        }
    }
}

/// How two values of a list are combined, and who owns what in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    /// One value, replaced as a whole.
    #[default]
    Atomic,
    /// Each scalar once.
    Set,
    /// Items are told apart by these fields.
    Map(Vec<String>),
}

/// Limits that a value must keep.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_minimum: bool,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub unique_items: bool,
    pub pattern: Option<regex::Regex>,
    pub values: Vec<Value>,
}

/// The schema of a value.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// Name of a built-in type that stands here.
    pub reference: Option<String>,
    pub kind: Type,
    pub format: String,
    pub nullable: bool,
    pub properties: IndexMap<String, Schema>,
    pub additional: Option<Box<Schema>>,
    pub items: Option<Box<Schema>>,
    pub required: Vec<String>,
    /// Unknown fields are kept.
    pub preserve: bool,
    /// The value is a whole object with apiVersion, kind and metadata.
    pub embedded: bool,
    /// A map or structure that has one owner and is replaced as a whole.
    pub atomic: bool,
    pub list: ListKind,
    /// The field that strategic merge patches tell items apart by.
    pub merge_key: Option<String>,
    /// Field numbers in protobuf, from the outer message to the inner one.
    pub wire: Vec<u32>,
    /// Absence and zero are different things.
    pub pointer: bool,
    pub default: Option<Value>,
    pub limits: Limits,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
}

impl Schema {
    /// The schema itself, a reference followed.
    pub fn resolve(&self) -> &Schema {
        self.reference.as_deref().and_then(builtin::find).unwrap_or(self)
    }

    /// The schema of a field: a declared property, or what additional ones are.
    pub fn field(&self, name: &str) -> Option<&Schema> {
        let resolved = self.resolve();
        resolved.properties.get(name).or(resolved.additional.as_deref())
    }

    /// The schema of a list's items.
    pub fn item(&self) -> Option<&Schema> {
        self.resolve().items.as_deref()
    }

    /// Whether one owner holds the whole map or structure.
    pub fn is_atomic_map(&self) -> bool {
        self.atomic || self.resolve().atomic
    }
}
