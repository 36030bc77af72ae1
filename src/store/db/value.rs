//! Values and rows as both drivers take and give them.

use rusqlite::{
    CachedStatement,
    types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef},
};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    Arguments, Database, Decode, Encode, Postgres, Row as _, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArguments, PgRow},
};

use super::error::Result;

/// A row, read column by column in the order in which the statement selects them.
pub enum Columns<'r> {
    /// Of SQLite, from the column of this number on.
    Sqlite(&'r rusqlite::Row<'r>, usize),
    /// Of PostgreSQL.
    Postgres(&'r PgRow, usize),
}

impl Columns<'_> {
    fn next<T: Column>(&mut self) -> Result<T> {
        match self {
            Self::Sqlite(row, column) => {
                *column += 1;
                Ok(row.get(*column - 1)?)
            }
            Self::Postgres(row, column) => {
                *column += 1;
                Ok(row.try_get(*column - 1)?)
            }
        }
    }
}

/// What can be read from one column.
pub trait Column: FromSql + for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin {}
impl Column for i64 {}
impl Column for bool {}
impl Column for String {}
impl<T: DeserializeOwned + Send + Unpin> Column for Word<T> {}
impl<T: DeserializeOwned + Send + Unpin> Column for Json<T> {}
impl<T: Column> Column for Option<T> {}

/// What can be read from a row, or from the next columns of one: a column, a tuple, or a struct that is declared with [`row!`].
pub trait Row: Sized + Send + Unpin {
    /// Reads it.
    fn read(columns: &mut Columns<'_>) -> Result<Self>;
}

impl<T: Column> Row for T {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        columns.next()
    }
}

/// Declares a struct whose fields are the columns of a row, in their order; a field may be such a struct itself.
macro_rules! row {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $type),* }

        impl $crate::store::db::Row for $name {
            fn read(columns: &mut $crate::store::db::Columns<'_>) -> $crate::store::db::Result<Self> {
                Ok(Self { $($field: $crate::store::db::Row::read(columns)?),* })
            }
        }
    };
}
pub(in crate::store) use row;

/// A value that both drivers can bind.
pub trait Value: ToSql + for<'q> Encode<'q, Postgres> + Type<Postgres> + Send {}
impl<T: ToSql + for<'q> Encode<'q, Postgres> + Type<Postgres> + Send> Value for T {}

/// A tuple of values for `$1`, `$2`, ….
pub trait Values: Send {
    /// Gives them to SQLite, where `$1` is a name.
    fn bind(&self, statement: &mut CachedStatement<'_>) -> rusqlite::Result<()>;
    /// As PostgreSQL's driver takes them.
    fn postgres(self) -> sqlx::Result<PgArguments>;
}

macro_rules! tuples {
    ($($value:ident $name:literal)*) => {
        impl<$($value: Row),*> Row for ($($value,)*) {
            #[allow(unused_variables, reason = "there may be no columns")]
            fn read(columns: &mut Columns<'_>) -> Result<Self> {
                Ok(($($value::read(columns)?,)*))
            }
        }

        impl<$($value: Value),*> Values for ($($value,)*) {
            #[allow(unused_variables, reason = "there may be no values")]
            fn bind(&self, statement: &mut CachedStatement<'_>) -> rusqlite::Result<()> {
                #[allow(non_snake_case, reason = "one name for type and value")]
                let ($($value,)*) = self;
                $(if let Some(index) = statement.parameter_index($name)? {
                    statement.raw_bind_parameter(index, $value)?;
                })*
                Ok(())
            }

            fn postgres(self) -> sqlx::Result<PgArguments> {
                #[allow(non_snake_case, reason = "one name for type and value")]
                let ($($value,)*) = self;
                #[allow(unused_mut, reason = "there may be no values")]
                let mut arguments = PgArguments::default();
                $(arguments.add($value).map_err(sqlx::Error::Encode)?;)*
                Ok(arguments)
            }
        }
    };
}

tuples!();
tuples!(A "$1");
tuples!(A "$1" B "$2");
tuples!(A "$1" B "$2" C "$3");
tuples!(A "$1" B "$2" C "$3" D "$4");
tuples!(A "$1" B "$2" C "$3" D "$4" E "$5");
tuples!(A "$1" B "$2" C "$3" D "$4" E "$5" F "$6");
tuples!(A "$1" B "$2" C "$3" D "$4" E "$5" F "$6" G "$7");
tuples!(A "$1" B "$2" C "$3" D "$4" E "$5" F "$6" G "$7" H "$8");
tuples!(A "$1" B "$2" C "$3" D "$4" E "$5" F "$6" G "$7" H "$8" I "$9");
tuples!(A "$1" B "$2" C "$3" D "$4" E "$5" F "$6" G "$7" H "$8" I "$9" J "$10");

/// A set of rows as one JSON array, for `jsonb_each($1)`.
pub fn rows<T: Serialize>(rows: &[T]) -> Result<String> {
    Ok(serde_json::to_string(rows)?)
}

/// A value kept as JSON in a text column.
#[derive(Debug, Clone, PartialEq)]
pub struct Json<T>(pub T);

impl<T: Serialize> Json<T> {
    fn text(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.0)
    }
}

impl<T: DeserializeOwned> Json<T> {
    fn of(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text).map(Self)
    }
}

/// A value kept as one word in a text column: ids, names and the words of the contract, by their serde form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word<T>(pub T);

impl<T: Serialize> Word<T> {
    fn text(&self) -> std::result::Result<String, BoxDynError> {
        match serde_json::to_value(&self.0)? {
            serde_json::Value::String(word) => Ok(word),
            other => Err(format!("{other} is not a word").into()),
        }
    }
}

impl<T: DeserializeOwned> Word<T> {
    fn of(word: &str) -> std::result::Result<Self, serde::de::value::Error> {
        T::deserialize(serde::de::value::StrDeserializer::new(word)).map(Self)
    }
}

/// One text for both drivers.
macro_rules! as_text {
    ($name:ident) => {
        impl<T: Serialize> Serialize for $name<T> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }

        impl<T: Serialize> ToSql for $name<T> {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                let text = self.text().map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                Ok(text.into())
            }
        }

        impl<T: DeserializeOwned> FromSql for $name<T> {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                Self::of(value.as_str()?).map_err(|error| FromSqlError::Other(error.into()))
            }
        }

        impl<T> Type<Postgres> for $name<T> {
            fn type_info() -> <Postgres as Database>::TypeInfo {
                <String as Type<Postgres>>::type_info()
            }

            fn compatible(of: &<Postgres as Database>::TypeInfo) -> bool {
                <String as Type<Postgres>>::compatible(of)
            }
        }

        impl<'q, T: Serialize> Encode<'q, Postgres> for $name<T> {
            fn encode_by_ref(
                &self,
                buffer: &mut <Postgres as Database>::ArgumentBuffer,
            ) -> std::result::Result<IsNull, BoxDynError> {
                <String as Encode<Postgres>>::encode(self.text()?, buffer)
            }
        }

        impl<'r, T: DeserializeOwned> Decode<'r, Postgres> for $name<T> {
            fn decode(value: <Postgres as Database>::ValueRef<'r>) -> std::result::Result<Self, BoxDynError> {
                Ok(Self::of(<&str>::decode(value)?)?)
            }
        }
    };
}

as_text!(Json);
as_text!(Word);
