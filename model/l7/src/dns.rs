//! May this name be asked for?

mod names;
mod patterns;

pub use names::{canonical_name, name_matches};
pub use patterns::Patterns;
