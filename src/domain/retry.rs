//! The retry.
