//! The key.
