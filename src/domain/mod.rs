//! The domain floor.
