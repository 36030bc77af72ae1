//! The words of the contract as types, and the rules over them: pure, no I/O.

pub mod alarm;
pub mod brake;
pub mod breaker;
pub mod budget;
pub mod credential;
pub mod cursor;
pub mod device;
pub mod event;
pub mod feed;
pub mod id;
pub mod key;
pub mod lag;
pub mod limits;
pub mod merge;
pub mod operation;
pub mod policy;
pub mod push;
pub mod record;
pub mod retry;
pub mod settings;
pub mod stats;
pub mod tally;
pub mod time;
pub mod timeline;
pub mod verdict;
pub mod wake_rate;

/// Why a value was refused: a JSON pointer (RFC 6901) into the request and a sentence that names the limit and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// JSON pointer to the field; empty for the whole document.
    pub pointer: String,
    /// One sentence for the caller.
    pub detail: String,
    /// Whether the value is of the right kind but too large (413 instead of 422).
    pub kind: InvalidKind,
}

/// How a refused value is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidKind {
    /// It is not one of the values allowed here.
    Value,
    /// It is larger than its limit.
    TooLarge,
}

impl Invalid {
    /// A value that is not allowed at `pointer`.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into(), kind: InvalidKind::Value }
    }

    /// A value that exceeds its size limit at `pointer`.
    pub fn too_large(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: InvalidKind::TooLarge, ..Self::new(pointer, detail) }
    }

    /// The same refusal, seen from the document that holds this one at `parent`.
    pub fn within(mut self, parent: &str) -> Self {
        self.pointer.insert_str(0, parent);
        self
    }
}

/// Refuses text outside `1..=max` characters, or with control characters.
fn check_text(pointer: &str, value: &str, max_chars: usize, errors: &mut Vec<Invalid>) {
    let actual = value.chars().count();
    if actual == 0 || actual > max_chars {
        errors.push(Invalid::new(pointer, format!("must have 1 to {max_chars} characters, has {actual}")));
    } else if value.chars().any(char::is_control) {
        errors.push(Invalid::new(pointer, "must not contain control characters"));
    }
}
