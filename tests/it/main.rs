//! Stories of use, black-box, in one binary.

mod sim_foreign;
mod sim_protocol;
mod transport_calls;
mod transport_payload;
