//! What the stories are told with.

pub mod phone;
pub mod served;
pub mod world;
