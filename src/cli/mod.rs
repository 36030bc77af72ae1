//! The cli floor.

pub mod init;
