//! Cursors: a position that a client hands back, sealed against the wrong reader and the wrong past.

use super::feed::{FeedName, Position};
use crate::secret::Secrets;

/// One line of history. A restored backup begins a new one, so that cursors from the lost future are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(pub i64);

/// Who may use a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope<'a> {
    /// One device's sync.
    Sync {
        /// The device's id.
        device: &'a str,
    },
    /// One feed of an app.
    Feed {
        /// The app's id.
        app: &'a str,
        /// The feed.
        feed: &'a FeedName,
    },
}

impl Scope<'_> {
    fn text(&self) -> String {
        match self {
            Self::Sync { device } => format!("sync/{device}"),
            Self::Feed { app, feed } => format!("feed/{app}/{feed}"),
        }
    }
}

/// Why a cursor was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorError {
    /// Not one of ours, or another device's or feed's.
    Invalid,
    /// From another line of history.
    EpochChanged,
}

/// Seals a position.
pub fn seal(secrets: &Secrets, scope: &Scope<'_>, epoch: Epoch, position: Position) -> String {
    let payload = [epoch.0.to_be_bytes(), position.0.to_be_bytes()].concat();
    secrets.sign(&scope.text(), &payload)
}

/// Opens a cursor that was sealed for `scope`.
pub fn open(secrets: &Secrets, scope: &Scope<'_>, epoch: Epoch, cursor: &str) -> Result<Position, CursorError> {
    let payload = secrets.verify(&scope.text(), cursor).ok_or(CursorError::Invalid)?;
    let (sealed_epoch, position) = payload.split_first_chunk::<8>().ok_or(CursorError::Invalid)?;
    let position: [u8; 8] = position.try_into().map_err(|_| CursorError::Invalid)?;
    if i64::from_be_bytes(*sealed_epoch) != epoch.0 {
        return Err(CursorError::EpochChanged);
    }
    Ok(Position(i64::from_be_bytes(position)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::SecretBox;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_opens_for_its_own_reader_and_epoch_only(position in 0..i64::MAX, epoch in 0..1000i64, text in ".{0,80}") {
            let secrets = Secrets::derive(&SecretBox::new(Box::new([9; 32])));
            let (mine, other) = (Scope::Sync { device: "dev_1" }, Scope::Sync { device: "dev_2" });
            let cursor = seal(&secrets, &mine, Epoch(epoch), Position(position));
            prop_assert_eq!(open(&secrets, &mine, Epoch(epoch), &cursor), Ok(Position(position)));
            prop_assert_eq!(open(&secrets, &other, Epoch(epoch), &cursor), Err(CursorError::Invalid));
            prop_assert_eq!(open(&secrets, &mine, Epoch(epoch + 1), &cursor), Err(CursorError::EpochChanged));
            prop_assert_eq!(open(&secrets, &mine, Epoch(epoch), &text), Err(CursorError::Invalid));
        }
    }
}
