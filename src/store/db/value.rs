//! Values and rows as both drivers take and give them.

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    Arguments, Database, Decode, Encode, FromRow, Postgres, Result, Sqlite, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArguments, PgRow},
    query::QueryAs,
    sqlite::{SqliteArguments, SqliteRow},
};

/// A statement for SQLite.
#[expect(clippy::disallowed_methods, reason = "the one door")]
pub(super) fn sqlite<T: Row>(
    sql: &'static str,
    values: impl Values,
) -> Result<QueryAs<'static, Sqlite, T, SqliteArguments>> {
    Ok(sqlx::query_as_with(sql, values.sqlite()?))
}

/// A statement for PostgreSQL.
#[expect(clippy::disallowed_methods, reason = "the one door")]
pub(super) fn postgres<T: Row>(
    sql: &'static str,
    values: impl Values,
) -> Result<QueryAs<'static, Postgres, T, PgArguments>> {
    Ok(sqlx::query_as_with(sql, values.postgres()?))
}

/// A row: any struct that derives [`FromRow`], or a tuple.
pub trait Row: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}
impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

/// A value that both drivers can bind.
pub trait Value: BindsTo<Sqlite> + BindsTo<Postgres> + Send {}
impl<T: BindsTo<Sqlite> + BindsTo<Postgres> + Send> Value for T {}

/// A value that a driver can bind.
pub trait BindsTo<DB: Database>: for<'q> Encode<'q, DB> + Type<DB> {}
impl<DB: Database, T: for<'q> Encode<'q, DB> + Type<DB>> BindsTo<DB> for T {}

/// A tuple of values for `$1`, `$2`, ….
pub trait Values: Send {
    /// As SQLite's driver takes them.
    fn sqlite(self) -> Result<SqliteArguments>;
    /// As PostgreSQL's driver takes them.
    fn postgres(self) -> Result<PgArguments>;
}

macro_rules! values {
    (bind $tuple:ident $($value:ident)*) => {{
        #[allow(non_snake_case, reason = "one name for type and value")]
        let ($($value,)*) = $tuple;
        #[allow(unused_mut, reason = "there may be no values")]
        let mut arguments = Default::default();
        $(Arguments::add(&mut arguments, $value).map_err(sqlx::Error::Encode)?;)*
        Ok(arguments)
    }};
    ($($value:ident)*) => {
        impl<$($value: Value),*> Values for ($($value,)*) {
            fn sqlite(self) -> Result<SqliteArguments> {
                values!(bind self $($value)*)
            }

            fn postgres(self) -> Result<PgArguments> {
                values!(bind self $($value)*)
            }
        }
    };
}

values!();
values!(A);
values!(A B);
values!(A B C);
values!(A B C D);
values!(A B C D E);
values!(A B C D E F);
values!(A B C D E F G);
values!(A B C D E F G H);
values!(A B C D E F G H I);
values!(A B C D E F G H I J);

/// A set of rows as one JSON array, for `jsonb_each($1)`.
pub fn rows<T: Serialize>(rows: &[T]) -> Result<String> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// A value kept as JSON in a text column.
#[derive(Debug, Clone, PartialEq)]
pub struct Json<T>(pub T);

impl<DB: Database, T> Type<DB> for Json<T>
where
    String: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        String::type_info()
    }
}

impl<'q, DB: Database, T: Serialize> Encode<'q, DB> for Json<T>
where
    String: Encode<'q, DB>,
{
    fn encode_by_ref(&self, buffer: &mut DB::ArgumentBuffer) -> std::result::Result<IsNull, BoxDynError> {
        serde_json::to_string(&self.0)?.encode(buffer)
    }
}

impl<T: Serialize> Serialize for Json<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'r, DB: Database, T: DeserializeOwned> Decode<'r, DB> for Json<T>
where
    &'r str: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> std::result::Result<Self, BoxDynError> {
        Ok(Self(serde_json::from_str(<&str>::decode(value)?)?))
    }
}

/// A value kept as one word in a text column: ids, names and the words of the contract, by their serde form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word<T>(pub T);

impl<DB: Database, T> Type<DB> for Word<T>
where
    String: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        String::type_info()
    }
}

impl<'q, DB: Database, T: Serialize> Encode<'q, DB> for Word<T>
where
    String: Encode<'q, DB>,
{
    fn encode_by_ref(&self, buffer: &mut DB::ArgumentBuffer) -> std::result::Result<IsNull, BoxDynError> {
        match serde_json::to_value(&self.0)? {
            serde_json::Value::String(word) => word.encode(buffer),
            other => Err(format!("{other} is not a word").into()),
        }
    }
}

impl<'r, DB: Database, T: DeserializeOwned> Decode<'r, DB> for Word<T>
where
    &'r str: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> std::result::Result<Self, BoxDynError> {
        let word = <&str>::decode(value)?;
        let deserializer = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(word);
        Ok(Self(T::deserialize(deserializer)?))
    }
}

impl<T: Serialize> Serialize for Word<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
