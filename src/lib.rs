//! Reveille wakes the app; the app asks for the truth.
//!
//! The floors, from the bottom: `domain` (pure) · `store` and `transport` · `live` · `api` and `dispatch` · `relay` · `cli`; `sim` stands
//! apart. `ARCHITECTURE.md` walks one event through all of them.

pub mod api;
pub mod cli;
pub mod config;
pub mod dispatch;
pub mod domain;
pub mod fault;
pub mod live;
pub mod metrics;
pub mod relay;
pub mod secret;
pub mod sim;
pub mod store;
pub mod telemetry;
pub mod transport;
