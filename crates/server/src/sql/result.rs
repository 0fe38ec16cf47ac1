//! The rows of a query as they are shown: each change as it comes, or the table that they add up to.

use std::collections::HashMap;
use std::fmt::Write;

use mainstem_connectors::{CELL_WIDTH_MAX, table_cell};
use mainstem_core::change::ChangeKind;

/// What a column is called, and whether its values are numbers, which stand to the right.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) is_number: bool,
}

/// Rows that are shown as they come. The first ones fix the widths of the columns.
pub(super) struct Lines {
    columns: Vec<Column>,
    with_kinds: bool,
    widths: Option<Vec<usize>>,
}

impl Lines {
    /// `with_kinds`: the first column says what each row does.
    pub(super) fn new(mut columns: Vec<Column>, with_kinds: bool) -> Lines {
        if with_kinds {
            columns.insert(0, Column { name: "op".to_owned(), is_number: false });
        }
        Lines { columns, with_kinds, widths: None }
    }

    /// The lines of some rows; the header first where they are the first.
    pub(super) fn show(&mut self, kinds: &[ChangeKind], rows: Vec<Vec<String>>) -> String {
        let with_kind = |(kind, mut row): (&ChangeKind, Vec<String>)| {
            if self.with_kinds {
                row.insert(0, kind.symbol().to_owned());
            }
            row
        };
        let rows: Vec<Vec<String>> = kinds.iter().zip(rows).map(with_kind).collect();
        let mut text = String::new();
        let widths = match &self.widths {
            Some(widths) => widths,
            None => {
                let widths = self.widths.insert(widths(&self.columns, rows.iter()));
                head(&mut text, &self.columns, widths);
                widths
            }
        };
        rows.iter().for_each(|row| line(&mut text, &self.columns, widths, row));
        text
    }

    /// The header, where no row has come.
    pub(super) fn empty(&self) -> Option<String> {
        let mut text = String::new();
        if self.widths.is_none() {
            head(&mut text, &self.columns, &widths(&self.columns, std::iter::empty()));
        }
        (!text.is_empty()).then_some(text)
    }
}

/// A table that is kept up to date. Rows stand in the order in which they first came; one that is updated stays where it is.
pub(super) struct Kept {
    rows_max: usize,
    /// Rows by place; none: gone.
    slots: Vec<Option<Vec<String>>>,
    places: HashMap<Vec<String>, Vec<usize>>,
    live: usize,
    /// The place of the row that was taken away last, where its new content is to stand.
    replaced: Option<usize>,
    /// Rows that were to be taken away and are not there. None, unless an operator is wrong.
    pub(super) missing: u64,
}

impl Kept {
    /// An empty table that may get so many rows.
    pub(super) fn new(rows_max: usize) -> Kept {
        let (slots, places) = (Vec::new(), HashMap::new());
        Kept { rows_max, slots, places, live: 0, replaced: None, missing: 0 }
    }

    /// Rows in it.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Applies changes.
    ///
    /// # Errors
    /// Where it gets more rows than it may have.
    pub(super) fn apply(&mut self, kinds: &[ChangeKind], rows: Vec<Vec<String>>) -> Result<(), String> {
        for (kind, row) in kinds.iter().zip(rows) {
            match kind.is_addition() {
                true => self.add(*kind, row),
                false => self.take(*kind, &row),
            }
            if self.live > self.rows_max {
                return Err(format!(
                    "the result has more than {} rows; show it as a changelog (SET 'sql-client.execution.result-mode' = \
                     'changelog'), limit it, or raise 'sql-client.execution.max-table-result.rows'",
                    self.rows_max
                ));
            }
        }
        self.compact();
        Ok(())
    }

    fn add(&mut self, kind: ChangeKind, row: Vec<String>) {
        let place = self.replaced.take().filter(|_| kind == ChangeKind::UpdateAfter).unwrap_or(self.slots.len());
        if place == self.slots.len() {
            self.slots.push(None);
        }
        self.places.entry(row.clone()).or_default().push(place);
        self.slots[place] = Some(row);
        self.live += 1;
    }

    fn take(&mut self, kind: ChangeKind, row: &Vec<String>) {
        let Some(places) = self.places.get_mut(row) else {
            self.missing += 1;
            return;
        };
        let place = places.pop().expect("there is one for each row");
        if places.is_empty() {
            self.places.remove(row);
        }
        self.slots[place] = None;
        self.live -= 1;
        self.replaced = (kind == ChangeKind::UpdateBefore).then_some(place);
    }

    /// Places of rows that are gone are given up when they are many.
    fn compact(&mut self) {
        if self.slots.len() < 1024 || self.slots.len() / 2 < self.live || self.replaced.is_some() {
            return;
        }
        self.slots.retain(Option::is_some);
        self.places.clear();
        for (place, row) in self.slots.iter().enumerate() {
            self.places.entry(row.clone().expect("only those were kept")).or_default().push(place);
        }
    }

    /// The first rows, each on a line, without a header.
    pub(super) fn plain(&self) -> impl Iterator<Item = &Vec<String>> {
        self.slots.iter().flatten()
    }

    /// The table with a header; at most so many rows.
    pub(super) fn show(&self, columns: &[Column], most: usize) -> String {
        let rows = || self.plain().take(most);
        let widths = widths(columns, rows());
        let mut text = String::new();
        head(&mut text, columns, &widths);
        rows().for_each(|row| line(&mut text, columns, &widths, row));
        text
    }
}

/// A table of texts with a header, as SHOW and DESCRIBE give it.
pub(super) fn table(names: &[&str], rows: &[Vec<String>]) -> String {
    let columns: Vec<Column> = names.iter().map(|name| Column { name: (*name).to_owned(), is_number: false }).collect();
    // What a user has declared is shown as a whole.
    let width = |at: usize| rows.iter().map(|row| length(&row[at])).chain([length(names[at])]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let mut text = String::new();
    head(&mut text, &columns, &widths);
    rows.iter().for_each(|row| line(&mut text, &columns, &widths, row));
    text
}

fn widths<'a>(columns: &[Column], rows: impl Iterator<Item = &'a Vec<String>>) -> Vec<usize> {
    let mut widths: Vec<usize> = columns.iter().map(|column| length(&table_cell(&column.name))).collect();
    for row in rows {
        widths.iter_mut().zip(row).for_each(|(width, text)| *width = (*width).max(length(&table_cell(text))));
    }
    widths
}

fn head(text: &mut String, columns: &[Column], widths: &[usize]) {
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let plain: Vec<Column> = columns.iter().map(|column| Column { is_number: false, ..column.clone() }).collect();
    line(text, &plain, widths, &names);
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    let _ = writeln!(text, "{}", rule.join("+"));
}

fn line(text: &mut String, columns: &[Column], widths: &[usize], row: &[String]) {
    let mut shown = String::new();
    for (index, ((cell, column), width)) in row.iter().zip(columns).zip(widths).enumerate() {
        let cell = if *width > CELL_WIDTH_MAX { cell.clone() } else { table_cell(cell) };
        let padding = " ".repeat(width.saturating_sub(length(&cell)));
        let bar = if index > 0 { " | " } else { " " };
        let _ = match column.is_number {
            true => write!(shown, "{bar}{padding}{cell}"),
            false => write!(shown, "{bar}{cell}{padding}"),
        };
    }
    let _ = writeln!(text, "{}", shown.trim_end());
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    fn columns() -> Vec<Column> {
        ["k", "n"].iter().map(|name| Column { name: (*name).to_owned(), is_number: *name == "n" }).collect()
    }

    #[test]
    fn a_table_follows_its_changes_and_rows_stay_in_their_place() {
        use ChangeKind::{Delete, Insert, UpdateAfter, UpdateBefore};
        let mut kept = Kept::new(3);
        kept.apply(&[Insert, Insert, Insert], vec![row(&["a", "1"]), row(&["b", "1"]), row(&["a", "1"])]).unwrap();
        let changes = vec![row(&["b", "1"]), row(&["b", "12"]), row(&["a", "1"])];
        kept.apply(&[UpdateBefore, UpdateAfter, Delete], changes).unwrap();
        assert_eq!(kept.show(&columns(), 9), " k | n\n---+----\n a |  1\n b | 12\n");
        assert_eq!((kept.len(), kept.missing), (2, 0));
        kept.apply(&[Delete], vec![row(&["c", "1"])]).unwrap();
        assert_eq!(kept.missing, 1);
        let error = kept.apply(&[Insert, Insert], vec![row(&["c", "1"]), row(&["d", "1"])]).unwrap_err();
        assert!(error.contains("more than 3 rows"), "{error}");
    }

    #[test]
    fn places_are_given_up_and_found_again() {
        let mut kept = Kept::new(10_000);
        let numbered = |n: usize| row(&["k", &n.to_string()]);
        kept.apply(&[ChangeKind::Insert; 3000], (0..3000).map(numbered).collect()).unwrap();
        kept.apply(&[ChangeKind::Delete; 2900], (0..2900).map(numbered).collect()).unwrap();
        assert_eq!((kept.slots.len(), kept.len()), (100, 100));
        kept.apply(&[ChangeKind::Delete; 99], (2900..2999).map(numbered).collect()).unwrap();
        assert_eq!(kept.plain().collect::<Vec<_>>(), [&numbered(2999)]);
        assert_eq!(kept.missing, 0);
    }

    #[test]
    fn lines_have_one_header_and_cannot_move_the_cursor() {
        let mut lines = Lines::new(columns(), true);
        assert_eq!(lines.empty().unwrap(), " op | k | n\n----+---+---\n");
        let first = lines.show(&[ChangeKind::Insert], vec![row(&["a\u{1b}[2J", "1"])]);
        assert_eq!(first, " op | k          | n\n----+------------+---\n +I | a\\u{1b}[2J | 1\n");
        assert_eq!(lines.show(&[ChangeKind::Delete], vec![row(&["b", "2"])]).lines().count(), 1);
    }
}
