//! The cli floor.

pub mod init;
pub mod sim;
