//! What the stories are told with.

pub mod phone;
pub mod world;
