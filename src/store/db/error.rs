//! Why the database did not do it, and whether that passes.

/// What either driver says, and what the door says itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL or the way to it.
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    /// SQLite.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// Somebody shared a COMMIT that failed.
    #[error("the transaction could not be committed: {0}")]
    NotCommitted(String),
    /// The database has been closed.
    #[error("the database is closed")]
    Closed,
    /// A statement that finds a row always has found none.
    #[error("a row is missing")]
    NoRow,
    /// A value cannot be written as JSON.
    #[error("a value cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What the door answers.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The code of PostgreSQL, appendix A, or of SQLite (sqlite.org/rescode.html).
    pub fn code(&self) -> Option<String> {
        match self {
            Self::Postgres(error) => Some(error.as_database_error()?.code()?.into_owned()),
            Self::Sqlite(error) => Some(error.sqlite_error()?.extended_code.to_string()),
            Self::NotCommitted(_) | Self::Closed | Self::NoRow | Self::Json(_) => None,
        }
    }

    /// PostgreSQL has broken a transaction off for another's sake: serialisation failure or deadlock (appendix A).
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Postgres(_)) && self.code().is_some_and(|code| code == "40001" || code == "40P01")
    }

    /// The database cannot be reached for now: no connection, or a server that starts, stops or has no place left
    /// (PostgreSQL, appendix A: classes 08, 53 and 57P).
    pub fn is_away(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Postgres(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed) => true,
            Self::Postgres(_) => {
                let code = self.code().unwrap_or_default();
                ["08", "53", "57P"].iter().any(|class| code.starts_with(class)) && code.len() == 5
            }
            _ => false,
        }
    }

    /// Another connection has locked SQLite's file.
    pub fn is_busy(&self) -> bool {
        let code = if let Self::Sqlite(error) = self { error.sqlite_error_code() } else { None };
        code == Some(rusqlite::ErrorCode::DatabaseBusy)
    }
}
