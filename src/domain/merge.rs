//! Several histories told as one, newest first and page by page, though each is read on its own and only so far.

use std::{cmp::Reverse, collections::VecDeque};

/// One history, newest first, as far as it has been read.
#[derive(Debug)]
pub struct Source<T> {
    rows: VecDeque<T>,
    end: End,
}

/// Whether all of a history has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// There is nothing older.
    Reached,
    /// There may be more.
    Open,
}

/// Rows of all sources.
#[derive(Debug, PartialEq, Eq)]
pub struct Merged<T> {
    /// Newest first, those that do not show included, for a reader goes on behind them as well.
    pub rows: Vec<T>,
    /// Whether something older may follow.
    pub end: End,
}

impl<T> Source<T> {
    /// What a read of at most `limit` rows has brought.
    pub fn read(rows: Vec<T>, limit: usize) -> Self {
        let end = if rows.len() < limit { End::Reached } else { End::Open };
        Self { rows: rows.into(), end }
    }

    /// The same rows as something else.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Source<U> {
        Source { rows: self.rows.into_iter().map(change).collect(), end: self.end }
    }
}

/// The newest rows of all sources, until `limit` of them show or nobody can say any more which is next.
///
/// `age` puts them in order: what is greater is newer. Each source keeps its own order whatever it says, so who goes on behind the last
/// row of each source neither skips nor repeats one.
pub fn merge<T, K: Ord>(
    mut sources: Vec<Source<T>>,
    limit: usize,
    age: impl Fn(&T) -> K,
    shows: impl Fn(&T) -> bool,
) -> Merged<T> {
    let (mut rows, mut shown) = (Vec::new(), 0);
    let unknown = |source: &Source<T>| source.rows.is_empty() && source.end == End::Open;
    while shown < limit && !sources.iter().any(unknown) {
        // Of equals, the first source is the newest.
        let next = sources.iter_mut().filter(|source| !source.rows.is_empty());
        let next = next.min_by_key(|source| Reverse(source.rows.front().map(&age)));
        let Some(row) = next.and_then(|source| source.rows.pop_front()) else { break };
        shown += usize::from(shows(&row));
        rows.push(row);
    }
    let done = |source: &Source<T>| source.rows.is_empty() && source.end == End::Reached;
    Merged { rows, end: if sources.iter().all(done) { End::Reached } else { End::Open } }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A row: its source, its place there, its age, and whether it shows.
    type Row = (usize, usize, u8, bool);

    /// Pages through histories of which each read brings at most `read` rows.
    fn page_through(histories: &[Vec<Row>], limit: usize, read: usize) -> Vec<Vec<Row>> {
        let mut places = vec![0; histories.len()];
        let mut pages = Vec::new();
        loop {
            let sources = histories.iter().zip(&places).map(|(rows, from)| {
                let rows = rows[*from..].iter().take(read).copied().collect();
                Source::read(rows, read)
            });
            let merged = merge(sources.collect(), limit, |row| row.2, |row| row.3);
            for row in &merged.rows {
                places[row.0] = row.1 + 1;
            }
            let stuck = merged.rows.is_empty() && merged.end == End::Open;
            assert!(!stuck, "a page that is not the last one goes on");
            pages.push(merged.rows);
            if merged.end == End::Reached {
                return pages;
            }
        }
    }

    #[test]
    fn what_has_not_been_read_is_not_passed_over() {
        let seldom = vec![(0, 0, 9, true), (0, 1, 1, true)];
        let often = (0..5).map(|place| (1, place, 8 - u8::try_from(place).unwrap(), false)).collect();
        let pages = page_through(&[seldom, often], 10, 3);
        let ages: Vec<Vec<u8>> = pages.iter().map(|page| page.iter().map(|row| row.2).collect()).collect();
        assert_eq!(ages, [vec![9, 8, 7, 6], vec![5, 4, 1]]);
    }

    proptest! {
        /// Whatever the ages, the pages hold every row once, and each source in its own order; if the sources are in order, so is all.
        #[test]
        fn no_row_is_skipped_or_repeated(
            ages in proptest::collection::vec(proptest::collection::vec((any::<u8>(), any::<bool>()), 0..20), 1..4),
            sorted in any::<bool>(), limit in 1usize..8, more in 0usize..4,
        ) {
            let histories: Vec<Vec<Row>> = ages.into_iter().enumerate().map(|(source, mut rows)| {
                if sorted {
                    rows.sort_by_key(|row| Reverse(row.0));
                }
                rows.into_iter().enumerate().map(|(place, (age, shows))| (source, place, age, shows)).collect()
            }).collect();
            let pages = page_through(&histories, limit, limit + more);
            for page in &pages {
                prop_assert!(page.iter().filter(|row| row.3).count() <= limit);
            }
            let all: Vec<Row> = pages.concat();
            for (source, rows) in histories.iter().enumerate() {
                let told: Vec<Row> = all.iter().filter(|row| row.0 == source).copied().collect();
                prop_assert_eq!(&told, rows);
            }
            if sorted {
                prop_assert!(all.is_sorted_by(|a, b| a.2 >= b.2));
            }
        }
    }
}
