//! What the stories are told with.

pub mod cli;
pub mod database;
pub mod live;
pub mod phone;
pub mod proxy;
pub mod served;
pub mod world;
