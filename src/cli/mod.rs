//! The cli floor.
pub mod sim;
