//! The transport floor.
