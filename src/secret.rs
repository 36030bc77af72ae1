//! The secret.
