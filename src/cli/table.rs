//! Tables for people: as wide as the terminal and no wider; whole where nobody looks.

use console::{Alignment, measure_text_width, pad_str, truncate_str};

use super::screen::{Look, Screen};

/// Blank columns between two columns.
const GAP: usize = 2;

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    title: &'static str,
    alignment: Alignment,
    /// It may be cut down to so many characters.
    least: Option<usize>,
    /// Where there is no room, the columns with the highest go.
    rank: u8,
}

impl Column {
    /// A column that stays, and whole.
    pub const fn new(title: &'static str) -> Self {
        Self { title, alignment: Alignment::Left, least: None, rank: 0 }
    }

    /// Its texts end below each other, as numbers do.
    pub const fn right(self) -> Self {
        Self { alignment: Alignment::Right, ..self }
    }

    /// It may be cut down to so many characters.
    pub const fn least(self, chars: usize) -> Self {
        Self { least: Some(chars), ..self }
    }

    /// Where there is no room it goes, the highest rank first.
    pub const fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }

    fn least_width(&self, whole: usize) -> usize {
        self.least.map_or(whole, |least| least.clamp(measure_text_width(self.title), whole.max(1)).min(whole))
    }
}

/// A text with a look.
#[derive(Debug, Clone)]
pub struct Cell(String, Look);

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self(text, Look::Plain)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self(text.to_owned(), Look::Plain)
    }
}

impl Cell {
    /// With this look.
    pub fn of(look: Look, text: impl Into<String>) -> Self {
        Self(text.into(), look)
    }
}

/// Columns and rows.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// One without rows.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// One more row, with a cell for each column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Its lines, the titles first.
    pub fn lines(&self, screen: Screen) -> Vec<String> {
        let widths = self.widths(screen.columns());
        let line = |cells: &[Cell]| {
            let shown =
                cells.iter().zip(&self.columns).zip(&widths).filter_map(|((Cell(text, look), column), width)| {
                    let width = (*width)?;
                    let text = pad_str(&truncate_str(text, width, "…"), width, column.alignment, None).into_owned();
                    Some(screen.paint(*look, &text))
                });
            shown.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_owned()
        };
        let titles: Vec<_> = self.columns.iter().map(|column| Cell::of(Look::Dim, column.title)).collect();
        std::iter::once(&titles).chain(&self.rows).map(|cells| line(cells)).collect()
    }

    /// Prints it.
    pub fn show(&self, screen: Screen) {
        for line in self.lines(screen) {
            screen.line(line);
        }
    }

    /// How wide each column is; `None` for one that is not shown, because it is empty or there is no room.
    fn widths(&self, most: Option<usize>) -> Vec<Option<usize>> {
        let whole =
            |at: usize| self.rows.iter().filter_map(|row| row.get(at)).map(|cell| measure_text_width(&cell.0)).max();
        let mut widths: Vec<Option<usize>> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                whole(at).filter(|width| *width > 0).map(|width| width.max(measure_text_width(column.title)))
            })
            .collect();
        let Some(most) = most else { return widths };
        let total = |widths: &[Option<usize>]| {
            let shown: Vec<_> = widths.iter().flatten().collect();
            shown.iter().copied().sum::<usize>() + GAP * shown.len().saturating_sub(1)
        };
        let least = |widths: &[Option<usize>]| -> Vec<Option<usize>> {
            widths
                .iter()
                .zip(&self.columns)
                .map(|(width, column)| width.map(|width| column.least_width(width)))
                .collect()
        };
        while total(&least(&widths)) > most {
            let dropped = (0..widths.len()).filter(|at| widths[*at].is_some() && self.columns[*at].rank > 0);
            let Some(at) = dropped.max_by_key(|at| self.columns[*at].rank) else { break };
            widths[at] = None;
        }
        // The widest that may gives way.
        let floor = least(&widths);
        while total(&widths) > most {
            let gives = (0..widths.len()).filter(|at| widths[*at] > floor[*at]).max_by_key(|at| widths[*at]);
            let Some(at) = gives else { break };
            widths[at] = widths[at].map(|width| width - 1);
        }
        widths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns = [
            Column::new("id"),
            Column::new("name").least(6),
            Column::new("none"),
            Column::new("fetched").right().rank(1),
        ];
        let mut table = Table::new(&columns);
        table.row(vec!["dev_1".into(), "a-very-long-name".into(), "".into(), "7".into()]);
        table.row(vec!["dev_2".into(), "ü".into(), "".into(), "1234".into()]);
        table
    }

    #[test]
    fn where_nobody_looks_all_of_it_is_shown() {
        let lines = table().lines(Screen::plain(None));
        assert_eq!(
            lines,
            [
                "id     name              fetched",
                "dev_1  a-very-long-name        7",
                "dev_2  ü                    1234"
            ]
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_what_may_be_cut_and_then_leaves_out() {
        let lines = table().lines(Screen::plain(Some(24)));
        assert_eq!(lines, ["id     name      fetched", "dev_1  a-very-…        7", "dev_2  ü            1234"]);
        let lines = table().lines(Screen::plain(Some(13)));
        assert_eq!(lines, ["id     name", "dev_1  a-ver…", "dev_2  ü"]);
        assert_eq!(table().lines(Screen::plain(Some(5)))[1], "dev_1  a-ver…", "no narrower than this");
    }

    #[test]
    fn an_empty_table_has_no_columns() {
        assert_eq!(Table::new(&[Column::new("id")]).lines(Screen::plain(None)), [""]);
    }
}
