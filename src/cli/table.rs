//! Tables in plain text: as wide as their contents, two spaces between columns, no lines.

use super::words::printable;

/// Where a column's contents stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table that grows by rows.
pub(super) struct Table {
    columns: Vec<(Align, usize)>,
    rows: Vec<Row>,
}

enum Row {
    Cells(Vec<String>),
    /// A line of its own below a row.
    Note(String),
}

impl Table {
    /// With these headings.
    pub(super) fn new(columns: &[(&str, Align)]) -> Self {
        let mut table = Self {
            columns: columns.iter().map(|(_, align)| (*align, 0)).collect(),
            rows: Vec::new(),
        };
        table.row(columns.iter().map(|(heading, _)| (*heading).to_owned()).collect());
        table
    }

    /// Adds a row; cells without a column are not shown.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        let cells: Vec<String> = cells.iter().map(|cell| printable(cell)).collect();
        for ((_, width), cell) in self.columns.iter_mut().zip(&cells) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(Row::Cells(cells));
    }

    /// Adds a line below the last row.
    pub(super) fn note(&mut self, text: &str) {
        self.rows.push(Row::Note(printable(text)));
    }

    /// All of it, without a line end at the end.
    pub(super) fn text(&self) -> String {
        let lines: Vec<String> = self.rows.iter().map(|row| self.line(row)).collect();
        lines.join("\n")
    }

    fn line(&self, row: &Row) -> String {
        let cells = match row {
            Row::Cells(cells) => cells,
            Row::Note(text) => return format!("  {text}"),
        };
        let mut line = String::new();
        for ((align, width), cell) in self.columns.iter().zip(cells) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let padded = match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            };
            line.push_str(&padded);
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let mut table = Table::new(&[
            ("NAME", Align::Left),
            ("KEYS", Align::Right),
            ("ZONE", Align::Left),
        ]);
        table.row(vec!["a".into(), "123456".into(), "-".into()]);
        table.note("why\x07");
        table.row(vec!["münchen-1".into(), "1".into(), "b".into()]);
        assert_eq!(
            table.text(),
            "NAME         KEYS  ZONE\n\
             a          123456  -\n  \
               why?\n\
             münchen-1       1  b"
        );
    }
}
