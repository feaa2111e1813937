//! How wide are a table's columns? As Go's tabwriter has it, so that tables look as users know them.

/// Rows of cells. Cells that follow each other in neighbouring rows, except last ones of a row, form a column.
#[derive(Debug, Default)]
pub struct Tabs {
    rows: Vec<Vec<String>>,
}

const MINIMUM: usize = 2;
const PADDING: usize = 3;

impl Tabs {
    /// Adds a row.
    pub fn row<'a>(&mut self, cells: impl IntoIterator<Item = &'a str>) {
        self.rows.push(cells.into_iter().map(str::to_owned).collect());
    }

    /// The text, with a line feed after each row.
    pub fn align(self) -> String {
        let mut text = String::new();
        self.block(0, self.rows.len(), &mut Vec::new(), &mut text);
        text
    }

    /// Rows whose columns left of `widths.len()` are settled.
    fn block(&self, start: usize, end: usize, widths: &mut Vec<usize>, text: &mut String) {
        let column = widths.len();
        let has_cell = |row: usize| column + 1 < self.rows[row].len();
        let mut row = start;
        while row < end {
            if !has_cell(row) {
                self.line(row, widths, text);
                row += 1;
                continue;
            }
            let stop = (row..end).find(|row| !has_cell(*row)).unwrap_or(end);
            let widest = (row..stop).map(|row| width(&self.rows[row][column])).max().unwrap_or(0);
            widths.push((widest + PADDING).max(MINIMUM));
            self.block(row, stop, widths, text);
            widths.pop();
            row = stop;
        }
    }

    fn line(&self, row: usize, widths: &[usize], text: &mut String) {
        for (column, cell) in self.rows[row].iter().enumerate() {
            text.push_str(cell);
            if let Some(wanted) = widths.get(column) {
                text.extend(std::iter::repeat_n(' ', wanted.saturating_sub(width(cell))));
            }
        }
        text.push('\n');
    }
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut tabs = Tabs::default();
        tabs.row(["NAMESPACE", "CLUSTER"]);
        tabs.row(["default", "kind"]);
        tabs.row(["without"]);
        tabs.row(["a", "b", "c"]);
        tabs.row(["", "", ""]);
        let expected = "NAMESPACE   CLUSTER\ndefault     kind\nwithout\na   b   c\n       \n";
        // The two cells of the last row are padded to the column's width.
        assert_eq!(tabs.align(), expected.replace("\n       \n", "\n        \n"));
    }
}
