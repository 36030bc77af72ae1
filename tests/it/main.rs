//! Stories of use, black-box, in one binary.
