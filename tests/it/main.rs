//! Stories of use, black-box, in one binary.

mod sim_protocol;
