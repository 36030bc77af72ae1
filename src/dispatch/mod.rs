//! The dispatch floor.
