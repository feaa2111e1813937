//! What follows from policies as a whole: differences, dead rules, suggestions, reachability.
#![forbid(unsafe_code)]

mod area;
pub mod dead;
mod decision;
pub mod diff;
mod domain;
mod language;
pub mod layout;
mod names;
pub mod never;
pub mod reach;
mod region;
pub mod requests;
mod side;
mod space;
pub mod suggest;
mod view;

pub use area::Area;
pub use decision::{Decision, DecisionId};
pub use region::{Kind, Owner, PortName, Region, Role, Somebody};
pub use side::{Place, Side};
pub use space::{Names, Party, Set, Space};
pub use view::{ELSEWHERE, Scene, Stand, TooMany};
