//! One pinned core.

pub mod wire;
pub mod young;
