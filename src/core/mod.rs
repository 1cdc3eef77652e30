//! (room under construction)
pub mod young;
