//! The file: what was typed, and the plan that comes of it.

mod plan;

pub use plan::*;
