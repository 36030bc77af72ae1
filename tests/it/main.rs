//! Stories of use, black-box, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    missing_docs,
    reason = "a test says what went wrong by failing"
)]

mod api_credentials;
mod api_device_status;
mod api_device_tokens;
mod api_devices;
mod api_events;
mod api_feeds;
mod api_follows;
mod api_idempotency;
mod api_operator;
mod api_service;
mod api_sync;
mod api_validation;
mod config;
mod crash;
mod demo;
mod levels;
mod races;
mod support;
mod tidy;
mod waking;

mod serve;
mod sim_foreign;
mod sim_protocol;
mod transport_calls;
mod transport_payload;
