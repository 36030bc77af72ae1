//! The cursor.
