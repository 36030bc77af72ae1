//! Statements that write many rows: SQLite is given one row after the other, PostgreSQL all of them as one JSON array.

use rusqlite::{CachedStatement, Connection, ToSql};
use serde::Serialize;

use super::{
    error::Result,
    value::{Columns, Row},
};

/// A statement for many rows, from one text for both databases.
///
/// `{name}` stands for a row's text of that name, `{name:int}` for its number, and `{rows}` for where the rows come from: to be put where
/// a `from` may stand.
#[derive(Debug)]
pub struct Each {
    sqlite: String,
    postgres: String,
}

/// A row on its way in: a struct that is declared with [`fields!`].
pub trait Fields: Serialize {
    /// What its fields are called.
    const NAMES: &'static [&'static str];
    /// Their values, in the same order.
    fn values(&self, bind: &mut dyn FnMut(&dyn ToSql) -> rusqlite::Result<()>) -> rusqlite::Result<()>;
}

/// Declares a struct whose fields are values for an [`Each`].
macro_rules! fields {
    ($(#[$meta:meta])* $vis:vis struct $name:ident $(<$life:lifetime>)? { $($(#[$doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(serde::Serialize)]
        $vis struct $name $(<$life>)? { $($(#[$doc])* $field: $type),* }

        $crate::store::db::fields!(of $name $(<$life>)? { $($field)* });
    };
    (of $name:ident $(<$life:lifetime>)? { $($field:ident)* }) => {
        impl $(<$life>)? $crate::store::db::Fields for $name $(<$life>)? {
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            fn values(
                &self,
                bind: &mut dyn FnMut(&dyn rusqlite::ToSql) -> rusqlite::Result<()>,
            ) -> rusqlite::Result<()> {
                $(bind(&self.$field)?;)*
                Ok(())
            }
        }
    };
}
pub(in crate::store) use fields;

impl Each {
    /// From its text.
    pub fn of(text: &str) -> Self {
        let (mut sqlite, mut postgres) = (String::new(), String::new());
        let mut rest = text;
        while let Some((before, (place, after))) =
            rest.split_once('{').and_then(|(before, after)| Some((before, after.split_once('}')?)))
        {
            sqlite.push_str(before);
            postgres.push_str(before);
            match place.split_once(':') {
                _ if place == "rows" => postgres.push_str("from jsonb_each($1) r"),
                Some((name, _int)) => {
                    sqlite.push_str(&format!("${name}"));
                    postgres.push_str(&format!("cast(r.value->>'{name}' as bigint)"));
                }
                None => {
                    sqlite.push_str(&format!("${place}"));
                    postgres.push_str(&format!("r.value->>'{place}'"));
                }
            }
            rest = after;
        }
        sqlite.push_str(rest);
        postgres.push_str(rest);
        Self { sqlite, postgres }
    }

    /// As PostgreSQL is given it, with all rows as `$1`.
    pub fn postgres(&'static self) -> &'static str {
        &self.postgres
    }

    /// Writes rows to SQLite.
    pub fn execute<T: Fields>(&self, connection: &Connection, rows: &[T]) -> Result<()> {
        let mut statement = connection.prepare_cached(&self.sqlite)?;
        let places = places::<T>(&statement)?;
        for row in rows {
            bind(&mut statement, &places, row)?;
            statement.raw_execute()?;
        }
        Ok(())
    }

    /// Writes rows to SQLite and reads what the statement returns of each.
    pub fn fetch<T: Fields, R: Row>(&self, connection: &Connection, rows: &[T]) -> Result<Vec<R>> {
        let mut statement = connection.prepare_cached(&self.sqlite)?;
        let (places, mut found) = (places::<T>(&statement)?, Vec::new());
        for row in rows {
            bind(&mut statement, &places, row)?;
            let mut returned = statement.raw_query();
            while let Some(row) = returned.next()? {
                found.push(R::read(&mut Columns::Sqlite(row, 0))?);
            }
        }
        Ok(found)
    }
}

/// The numbers of the parameters that a struct's fields go to, as far as the statement has them.
fn places<T: Fields>(statement: &CachedStatement<'_>) -> rusqlite::Result<Vec<Option<usize>>> {
    T::NAMES.iter().map(|name| statement.parameter_index(&format!("${name}"))).collect()
}

fn bind<T: Fields>(statement: &mut CachedStatement<'_>, places: &[Option<usize>], row: &T) -> rusqlite::Result<()> {
    let mut places = places.iter();
    row.values(&mut |value| match places.next().copied().flatten() {
        Some(place) => statement.raw_bind_parameter(place, value),
        None => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_is_for_both() {
        let each = Each::of("insert into t (a, n) select {a}, {n:int} {rows} where true");
        assert_eq!(each.sqlite, "insert into t (a, n) select $a, $n  where true");
        assert_eq!(
            each.postgres,
            "insert into t (a, n) select r.value->>'a', cast(r.value->>'n' as bigint) from jsonb_each($1) r where true"
        );
    }
}
