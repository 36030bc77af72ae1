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

mod alarms;
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
mod backup;
mod breakers;
mod browser;
mod canary;
mod causes;
mod chaos;
mod cli_check;
mod cli_check_https;
mod cli_listen;
mod cli_lists;
mod cli_operator;
mod cli_send;
mod cli_tail;
mod config;
mod crash;
mod crash_matrix;
mod credential_check;
mod demo;
mod erasure;
mod erasure_feeds;
mod fairness;
mod fleet;
mod gaps;
mod levels;
mod live_cuts;
mod live_nodes;
mod live_socket;
mod live_stream;
mod live_wait;
mod looking;
mod metrics;
mod moving;
mod nodes;
mod openapi;
mod pace;
mod presence;
mod races;
mod real_time;
mod remembered;
mod rewake;
mod stats;
mod support;
mod tidy;
mod timeline;
mod token_life;
mod traces;
mod waking;
mod why;

mod serve;
mod sim_foreign;
mod sim_protocol;
mod transport_calls;
mod transport_payload;
