//! How does a patch change an object?

pub mod json;
pub mod merge;
pub mod strategic;
