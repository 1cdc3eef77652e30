//! From text to a plan: what is written, then what is proven.

pub mod certificates;
pub mod plan;
pub mod snapshot;
