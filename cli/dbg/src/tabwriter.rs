//! How are columns aligned as Go's text/tabwriter does it?

/// Aligns text whose cells end with tabs. A column is as wide as its widest cell plus `padding`, at least `minimum`, over
/// consecutive lines that have it; what follows the last tab of a line is in no column.
pub fn align(text: &str, minimum: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|line| vec![0; line.len()]).collect();
    block(&lines, &mut widths, 0, (0, lines.len()), (minimum, padding));
    let mut out = String::new();
    for (line, widths) in lines.iter().zip(&widths) {
        let last = line.len() - 1;
        for (at, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if at < last {
                out.extend(std::iter::repeat_n(' ', widths[at].saturating_sub(cell.chars().count())));
            }
        }
        out.push('\n');
    }
    out
}

/// Widths of a column and those right of it, for some lines.
fn block(lines: &[Vec<&str>], widths: &mut [Vec<usize>], column: usize, range: (usize, usize), shape: (usize, usize)) {
    let (mut at, end) = range;
    while at < end {
        let has = |line: &Vec<&str>| column + 1 < line.len();
        if !has(&lines[at]) {
            at += 1;
            continue;
        }
        let stop = (at..end).find(|n| !has(&lines[*n])).unwrap_or(end);
        let widest = lines[at..stop].iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let width = (widest + shape.1).max(shape.0);
        widths[at..stop].iter_mut().for_each(|line| line[column] = width);
        block(lines, widths, column + 1, (at, stop), shape);
        at = stop;
    }
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn columns_span_lines_that_have_them() {
        assert_eq!(align("a\tbbb\tc\n\nccc\tb\tx\n", 0, 1), "a bbb c\n\nccc b x\n");
        assert_eq!(
            align("ID\tLABELS\n1\treserved:host\n\tk8s:a=b\n", 2, 3),
            "ID   LABELS\n1    reserved:host\n     k8s:a=b\n"
        );
    }
}
