//! Statements for many rows: SQLite is given one row after the other, PostgreSQL all of them as one array per column.

use rusqlite::{
    CachedStatement, Connection, ToSql,
    types::{ToSqlOutput, ValueRef},
};
use sqlx::{Arguments, postgres::PgArguments};

use super::{
    error::Result,
    value::{Columns, Row},
};

/// A statement for many rows, from one text for both databases.
///
/// `{name}` stands for a row's text of that name and `{name:int}` for its number. An `insert` says `values (…)` of one row; any other
/// statement that writes says with `{rows}` where they come from: to be put where a `from` may stand. One that reads says `{each}` or, in
/// front of a subquery, `{each lateral}` instead of `from`.
#[derive(Debug)]
pub struct Each {
    sqlite: String,
    postgres: String,
    /// The fields that PostgreSQL is given, in the order of its parameters.
    columns: Vec<(String, Kind)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Int,
}

/// A row on its way in: a struct that is declared with [`fields!`].
pub trait Fields {
    /// What its fields are called.
    const NAMES: &'static [&'static str];
    /// Their values, in the same order.
    fn values(&self, bind: &mut dyn FnMut(&dyn ToSql) -> rusqlite::Result<()>) -> rusqlite::Result<()>;
}

/// One column of all rows.
enum Column {
    Text(Vec<Option<String>>),
    Int(Vec<Option<i64>>),
}

/// Declares a struct whose fields are values for an [`Each`].
macro_rules! fields {
    ($(#[$meta:meta])* $vis:vis struct $name:ident $(<$life:lifetime>)? { $($(#[$doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
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
    /// A statement from its text.
    pub fn of(text: &str) -> Self {
        Self::new(text, "", "")
    }

    /// One that answers which rows have changed something: for [`changed`](Self::changed).
    pub fn answering(text: &str) -> Self {
        let Self { sqlite, postgres, columns } = Self::numbered(text);
        Self { sqlite, postgres: postgres + " returning r.nth", columns }
    }

    /// One that finds rows for each row: for [`found`](Self::found). `lock` is what only PostgreSQL is told, at the end.
    pub fn reading(text: &str, lock: &str) -> Self {
        let Self { sqlite, postgres, columns } = Self::numbered(text);
        // Whose they are comes first.
        let postgres = postgres.replacen("select ", "select r.nth, ", 1);
        Self { sqlite, postgres: format!("{postgres} {lock}"), columns }
    }

    fn numbered(text: &str) -> Self {
        Self::new(text, " with ordinality", ", nth")
    }

    fn new(text: &str, numbered: &str, number: &str) -> Self {
        let (mut sqlite, mut postgres, mut columns) = (String::new(), String::new(), Vec::<(String, Kind)>::new());
        let mut rest = text;
        while let Some((before, (place, after))) =
            rest.split_once('{').and_then(|(before, after)| Some((before, after.split_once('}')?)))
        {
            sqlite.push_str(before);
            postgres.push_str(before);
            rest = after;
            match place {
                "rows" => {
                    postgres.push_str("{rows}");
                    continue;
                }
                "each" | "each lateral" => {
                    sqlite.push_str("from");
                    let lateral = place.trim_start_matches("each");
                    postgres.push_str(&format!("{{rows}} cross join{lateral}"));
                    continue;
                }
                _ => {}
            }
            let (name, kind) = place.split_once(':').map_or((place, Kind::Text), |(name, _int)| (name, Kind::Int));
            sqlite.push_str(&format!("${name}"));
            postgres.push_str(&format!("r.{name}"));
            if columns.iter().all(|(known, _)| known != name) {
                columns.push((name.to_owned(), kind));
            }
        }
        sqlite.push_str(rest);
        postgres.push_str(rest);
        let array = |(index, (_, kind)): (usize, &(String, Kind))| match kind {
            Kind::Text => format!("${}::text[]", index + 1),
            Kind::Int => format!("${}::bigint[]", index + 1),
        };
        let arrays: Vec<String> = columns.iter().enumerate().map(array).collect();
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let rows = format!("from unnest({}){numbered} r ({}{number})", arrays.join(", "), names.join(", "));
        if let Some((before, (row, after))) =
            postgres.split_once("values (").and_then(|(before, after)| Some((before, after.split_once(')')?)))
        {
            postgres = format!("{before}select {row} {rows}{after}");
        }
        postgres = postgres.replace("{rows}", &rows);
        Self { sqlite, postgres, columns }
    }

    /// As PostgreSQL is given it.
    pub fn postgres(&'static self) -> &'static str {
        &self.postgres
    }

    /// The columns of all rows, as parameters for PostgreSQL.
    pub fn arrays<T: Fields>(&self, rows: &[T]) -> Result<PgArguments> {
        let empty = |(_, kind): &(String, Kind)| match kind {
            Kind::Text => Column::Text(Vec::with_capacity(rows.len())),
            Kind::Int => Column::Int(Vec::with_capacity(rows.len())),
        };
        let mut columns: Vec<Column> = self.columns.iter().map(empty).collect();
        let place = |field: &&str| self.columns.iter().position(|(name, _)| name == field);
        let places: Vec<Option<usize>> = T::NAMES.iter().map(place).collect();
        for row in rows {
            let mut places = places.iter();
            row.values(&mut |value| match places.next().copied().flatten().and_then(|place| columns.get_mut(place)) {
                Some(column) => column.push(&value.to_sql()?),
                None => Ok(()),
            })?;
        }
        let mut arguments = PgArguments::default();
        for column in columns {
            let added = match column {
                Column::Text(texts) => arguments.add(texts),
                Column::Int(numbers) => arguments.add(numbers),
            };
            added.map_err(sqlx::Error::Encode)?;
        }
        Ok(arguments)
    }

    /// Reads from SQLite; answers what has been found for each row.
    pub fn found<T: Row, F: Fields>(&self, connection: &Connection, rows: &[F]) -> Result<Vec<Vec<T>>> {
        let mut statement = connection.prepare_cached(&self.sqlite)?;
        let places = places::<F>(&statement)?;
        let find = |row| {
            bind(&mut statement, &places, row)?;
            let (mut rows, mut found) = (statement.raw_query(), Vec::new());
            while let Some(row) = rows.next()? {
                found.push(T::read(&mut Columns::Sqlite(row, 0))?);
            }
            Ok(found)
        };
        rows.iter().map(find).collect()
    }

    /// Writes rows to SQLite; answers the indices of those that have changed something.
    pub fn changed<T: Fields>(&self, connection: &Connection, rows: &[T]) -> Result<Vec<usize>> {
        let mut statement = connection.prepare_cached(&self.sqlite)?;
        let (places, mut changed) = (places::<T>(&statement)?, Vec::with_capacity(rows.len()));
        for (index, row) in rows.iter().enumerate() {
            bind(&mut statement, &places, row)?;
            if statement.raw_execute()? > 0 {
                changed.push(index);
            }
        }
        Ok(changed)
    }
}

impl Column {
    fn push(&mut self, value: &ToSqlOutput<'_>) -> rusqlite::Result<()> {
        let value = match value {
            ToSqlOutput::Borrowed(value) => *value,
            ToSqlOutput::Owned(value) => value.into(),
            _ => return Err(rusqlite::types::FromSqlError::InvalidType.into()),
        };
        match (self, value) {
            (Self::Text(texts), ValueRef::Null) => texts.push(None),
            (Self::Text(texts), value) => texts.push(Some(value.as_str()?.to_owned())),
            (Self::Int(numbers), value) => numbers.push(value.as_i64_or_null()?),
        }
        Ok(())
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
        let each = Each::of("insert into t (a, n) values ({a}, {n:int}) on conflict (a) do nothing");
        assert_eq!(each.sqlite, "insert into t (a, n) values ($a, $n) on conflict (a) do nothing");
        let rows = "from unnest($1::text[], $2::bigint[]) r (a, n)";
        assert_eq!(each.postgres, format!("insert into t (a, n) select r.a, r.n {rows} on conflict (a) do nothing"));
    }

    #[test]
    fn who_has_changed_something_is_told_by_number() {
        let each = Each::answering("update t set n = {n:int} {rows} where t.a = {a} and t.n < {n:int}");
        assert_eq!(each.sqlite, "update t set n = $n  where t.a = $a and t.n < $n");
        assert_eq!(
            each.postgres,
            "update t set n = r.n from unnest($1::bigint[], $2::text[]) with ordinality r (n, a, nth)
             where t.a = r.a and t.n < r.n returning r.nth"
                .replace("\n            ", "")
        );
    }

    #[test]
    fn what_is_found_is_told_apart_by_number() {
        let each = Each::reading("select t.n {each} t where t.a = {a}", "for update of t");
        assert_eq!(each.sqlite, "select t.n from t where t.a = $a");
        let rows = "from unnest($1::text[]) with ordinality r (a, nth)";
        assert_eq!(each.postgres, format!("select r.nth, t.n {rows} cross join t where t.a = r.a for update of t"));
    }
}
