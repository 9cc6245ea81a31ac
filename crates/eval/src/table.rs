use comfy_table::presets::{ASCII_MARKDOWN, NOTHING, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, TableStyle, Width};
use terminal_size::terminal_size_of;

/// A table of text cells, shown on a terminal or as Markdown.
#[derive(Clone, Debug, Default)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    left: usize,
}

impl Table {
    /// A table whose first `left` columns hold words, the others numbers.
    pub fn new<S: Into<String>>(header: impl IntoIterator<Item = S>, left: usize) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), rows: Vec::new(), left }
    }

    /// Adds a row.
    ///
    /// # Panics
    ///
    /// If the row has not as many cells as the header.
    pub fn push<S: Into<String>>(&mut self, row: impl IntoIterator<Item = S>) {
        let row: Vec<String> = row.into_iter().map(Into::into).collect();
        assert_eq!(row.len(), self.header.len(), "a row has a cell per column");
        self.rows.push(row);
    }

    /// For stdout: within its width if it is a terminal.
    pub fn for_stdout(&self) -> String {
        self.within(width_of_stdout())
    }

    /// At most `width` characters wide, if there is a limit: cells are broken between words, and where
    /// that does not do, each row is a list.
    fn within(&self, width: Option<u16>) -> String {
        let mut table = self.build(UTF8_FULL_CONDENSED, str::to_owned);
        let Some(width) = width else { return table.to_string() };
        // The first line is of characters that are one wide.
        let natural = table.lines().next().map_or(0, |line| line.chars().count());
        if natural <= usize::from(width) {
            return table.to_string();
        }
        let cells = |column: usize| {
            std::iter::once(&self.header).chain(&self.rows).map(move |row| row[column].as_str())
        };
        let words = |column| cells(column).flat_map(str::split_whitespace);
        let longest = |column| words(column).map(|word| word.chars().count()).max().unwrap_or(0);
        // A blank on either side of a cell, and a border before each and behind the last.
        let least: Vec<usize> = (0..self.header.len()).map(|column| longest(column) + 2).collect();
        if least.iter().sum::<usize>() + least.len() + 1 > usize::from(width) {
            return self.lists();
        }
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        for (column, least) in table.column_iter_mut().zip(least) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least as u16)));
        }
        table.to_string()
    }

    /// Each row as its words, and beneath them a line per number.
    fn lists(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let (words, numbers) = row.split_at(self.left);
            let titles = self.header.iter().map(|title| title.replace('\n', " ")).skip(self.left);
            let lines = titles.zip(numbers).filter(|(_, cell)| *cell != "–");
            let lines = lines.map(|(title, cell)| format!("  {title}: {cell}"));
            std::iter::once(words.join(", ")).chain(lines).collect::<Vec<_>>().join("\n")
        });
        rows.collect::<Vec<_>>().join("\n")
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        self.build(ASCII_MARKDOWN, markdown_text).to_string()
    }

    /// The header's cells; a cell may hold line breaks.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The rows' cells.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// How many columns hold words; the others hold numbers.
    pub fn left(&self) -> usize {
        self.left
    }

    /// As a floating LaTeX table in the style of booktabs, scaled down to the line's width if it is
    /// wider.
    pub fn latex(&self, caption: &str, label: &str) -> String {
        let columns = "l".repeat(self.left) + &"r".repeat(self.header.len() - self.left);
        let cells = |row: &[String]| {
            let row: Vec<String> = row.iter().map(|cell| latex_text(cell)).collect();
            format!("{} \\\\\n", row.join(" & "))
        };
        let rows: String = self.rows.iter().map(|row| cells(row)).collect();
        // Header cells break their lines as they do on a terminal.
        let header: Vec<String> = self
            .header
            .iter()
            .enumerate()
            .map(|(index, title)| {
                let at = if index < self.left { 'l' } else { 'r' };
                let lines: Vec<String> = title.split('\n').map(latex_text).collect();
                format!("\\shortstack[{at}]{{{}}}", lines.join(" \\\\ "))
            })
            .collect();
        let header = header.join(" & ");
        format!(
            "\n\\begin{{table}}\n\\centering\n\\caption{{{}}}\n\\label{{{label}}}\n\
             \\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n\
             \\begin{{tabular}}{{{columns}}}\n\\toprule\n{header} \\\\\n\\midrule\n{rows}\
             \\bottomrule\n\\end{{tabular}}}}\n\\end{{table}}\n",
            latex_text(caption)
        )
    }

    fn build(&self, style: TableStyle, text: fn(&str) -> String) -> comfy_table::Table {
        let cells = |row: &[String]| -> Vec<String> { row.iter().map(|cell| text(cell)).collect() };
        let mut table = comfy_table::Table::new();
        table
            .load_style(style)
            .set_header(cells(&self.header))
            .add_rows(self.rows.iter().map(|row| cells(row)));
        for column in table.column_iter_mut().skip(self.left) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

/// A paragraph for stdout: broken between words if it is a terminal.
pub fn paragraph(text: &str) -> String {
    let Some(width) = width_of_stdout() else { return text.to_owned() };
    let mut table = comfy_table::Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.add_row([text]);
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 0));
    }
    table.trim_fmt()
}

fn width_of_stdout() -> Option<u16> {
    terminal_size_of(std::io::stdout()).map(|(width, _)| width.0)
}

/// Text without what ends a cell of a Markdown table.
fn markdown_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace("\r\n", " ").replace(['\n', '\r'], " ")
}

/// Text with what LaTeX reads as commands, and what its fonts lack, in LaTeX's own way.
fn latex_text(text: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', character]),
            '\\' => out += "\\textbackslash{}",
            '~' => out += "\\textasciitilde{}",
            '^' => out += "\\textasciicircum{}",
            '±' => out += "$\\pm$",
            '−' => out += "$-$",
            '→' => out += "$\\to$",
            '×' => out += "$\\times$",
            'χ' => out += "$\\chi$",
            '<' | '>' => out += &format!("${character}$"),
            '–' => out += "--",
            '"' => {
                quoted = !quoted;
                out += if quoted { "``" } else { "''" };
            }
            '\n' => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

/// Seconds as `mm:ss`, as the paper prints them; tenths below ten seconds.
pub fn minutes_and_seconds(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    format!("{:02}:{:02}", whole / 60, whole % 60)
}

/// Seconds in the units that suit them, as a person is told of them who plans or waits: `8.4 s`, `45 s`,
/// `5 min 07 s`, `34 min`, `2 h 05 min`. In tables a time is written as the paper's
/// ([`minutes_and_seconds`]).
pub fn duration(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let (whole, minutes) = (seconds.round() as u64, (seconds / 60.0).round() as u64);
    match whole {
        0..60 => format!("{whole} s"),
        60..600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ if minutes < 60 => format!("{minutes} min"),
        _ => format!("{} h {:02} min", minutes / 60, minutes % 60),
    }
}

/// An integer with thousands separated by commas.
pub fn with_thousands(value: usize) -> String {
    let digits = value.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).expect("digits are ASCII"))
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_the_paper_prints_them() {
        assert_eq!(minutes_and_seconds(1021.4), "17:01");
        assert_eq!(minutes_and_seconds(59.6), "01:00");
        assert_eq!(minutes_and_seconds(3.21), "3.2 s");
        assert_eq!(with_thousands(177_854_978), "177,854,978");
        assert_eq!(with_thousands(998), "998");
    }

    #[test]
    fn a_duration_has_its_units_and_no_more_than_two() {
        for (seconds, expected) in [
            (0.0, "0.0 s"),
            (9.94, "9.9 s"),
            (9.96, "10 s"),
            (59.4, "59 s"),
            (59.6, "1 min 00 s"),
            (307.2, "5 min 07 s"),
            (599.4, "9 min 59 s"),
            (599.6, "10 min"),
            (2069.0, "34 min"),
            (3569.0, "59 min"),
            (3571.0, "1 h 00 min"),
            (7500.0, "2 h 05 min"),
            (360_000.0, "100 h 00 min"),
        ] {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn markdown_has_a_cell_per_column() {
        let mut table = Table::new(["method", "accuracy"], 1);
        table.push(["Vanilla", "0.871"]);
        let markdown = table.markdown();
        let lines: Vec<&str> = markdown.lines().collect();
        assert_eq!(
            lines,
            ["| method  | accuracy |", "|---------|----------|", "| Vanilla |    0.871 |"]
        );
    }

    #[test]
    fn text_ends_no_cell_of_a_markdown_table() {
        let mut table = Table::new(["method\nand a|b", "error"], 1);
        table.push([r".*(query|value)\|\.", "first line\nsecond line\r\nthird"]);
        let markdown = table.markdown();
        let lines: Vec<&str> = markdown.lines().collect();
        let [header, rule, row] = lines.as_slice() else { panic!("{markdown}") };
        assert_eq!(rule.matches('|').count(), 3);
        assert!(header.starts_with(r"| method and a\|b "), "{header}");
        assert!(row.starts_with(r"| .*(query\|value)\\\|\\. |"), "{row}");
        assert!(row.ends_with("| first line second line third |"), "{row}");
        assert!(table.within(None).contains("(query|value)"));
    }

    #[test]
    fn a_table_stays_within_its_terminal() {
        let mut table = Table::new(["method", "accuracy", "95 %\ninterval", "paper"], 1);
        table.push(["AdapterFusion, Fuse(ko, nsmc)", "0.7550", "0.7106 to 0.7946", "–"]);
        let widest =
            |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap_or_default();
        let whole = table.within(None);
        let natural = widest(&whole);
        assert_eq!(table.within(Some(natural as u16)), whole);
        let broken = table.within(Some(50));
        assert!(widest(&broken) <= 50 && broken.starts_with('┌'), "{broken}");
        for word in ["AdapterFusion,", "accuracy", "interval", "0.7550", "0.7106", "0.7946"] {
            assert!(broken.contains(word), "{word} in {broken}");
        }
        let lists = "AdapterFusion, Fuse(ko, nsmc)\n  accuracy: 0.7550\n  \
                     95 % interval: 0.7106 to 0.7946";
        assert_eq!(table.within(Some(45)), lists);
    }
}
