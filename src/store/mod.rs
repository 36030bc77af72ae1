//! The store floor.
