//! A lab to test against: brings one up, types what a user would type, reads what a user would see.

pub mod lab;
pub mod processes;
pub mod run;
pub mod transcript;
pub mod trials;

pub use lab::{Lab, Plan};
pub use run::{Run, eventually};
