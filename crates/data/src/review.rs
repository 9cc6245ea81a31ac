use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;

use crate::DataError;
use crate::diagnosis::{
    BYTE_ORDER_MARK, MisquoteKind, enclosed, misquote, no_column, not_utf8, repeated_column, shown,
    strip_bom, utf16,
};
use crate::error::BadLines;
use crate::split::hash;

/// One review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// Unique in its file.
    pub id: String,
    /// The text as it stands in the file; it may be empty.
    pub document: String,
    /// Class index.
    pub label: usize,
}

/// How a file of reviews is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Column of the id; without one, a review is known by its text.
    pub id_column: Option<String>,
    /// Column of the text.
    pub text_column: String,
    /// Column of the label.
    pub label_column: String,
    /// The labels as they stand in the file; a label's place is its class index.
    pub labels: Vec<String>,
    /// Field delimiter.
    pub delimiter: u8,
    /// Whether `"` quotes fields, or is a character like any other.
    pub quoting: bool,
}

/// What one reader takes for a part of the field, another for a part of the line's end.
const CARRIAGE_RETURN: &str = "expected a carriage return at the end of a line alone, found one at the \
                               end of a field";

/// A blank line is a row to one reader and nothing to the other.
const BLANK_LINE: &str = "blank line; remove it";

/// The longest header that [`read_columns`] looks at.
const HEADER: u64 = 64 * 1024;

/// The rows of a file that have as many fields as the header.
struct Structure {
    columns: Vec<String>,
    /// Where each row starts.
    lines: Vec<usize>,
    /// The fields of each row.
    rows: Vec<csv::StringRecord>,
}

impl Structure {
    /// The line that shows that the file was written with quotes; see [`enclosed`].
    fn enclosed(&self) -> Option<usize> {
        let header = self.columns.iter().map(|column| (1, column.as_str()));
        let rows = self.lines.iter().zip(&self.rows);
        let fields = rows.flat_map(|(&line, row)| row.iter().map(move |field| (line, field)));
        enclosed(header.chain(fields))
    }
}

/// Where a review's parts stand in a row.
struct Places {
    id: Option<usize>,
    text: usize,
    /// None where labels are not read.
    label: Option<usize>,
}

/// Reads every row of a file with a header, in its order.
///
/// A file that was most likely written with quotes, and is read without, is read with a warning.
///
/// # Errors
///
/// There is one error for all lines that are wrong: it names the first, with what is wrong there, how
/// many more there are, and where. If a quote in the wrong place made the first wrong, it names the
/// quote. A line is wrong that
///
/// - has another number of fields than the header, or is blank;
/// - has a label that is not among [`Format::labels`];
/// - has an id that occurs twice or begins with a byte order mark;
/// - is not UTF-8;
/// - is a header in which a column is missing or stands twice.
pub fn read_reviews(path: &Path, format: &Format) -> Result<Vec<Review>, DataError> {
    read(path, format, true)
}

/// Reads id and text of every row, as [`read_reviews`] does, of a file that needs no labels:
/// [`Format::label_column`] and [`Format::labels`] are not looked at.
pub fn read_texts(path: &Path, format: &Format) -> Result<Vec<(String, String)>, DataError> {
    let texts = read(path, format, false)?.into_iter();
    Ok(texts.map(|review| (review.id, review.document)).collect())
}

/// The columns that a file's first row names; empty if that is no text in UTF-8.
///
/// Only the beginning of the file is read, as far as a header may reach: what a file is can be told
/// before one chooses how to read it.
pub fn read_columns(path: &Path, delimiter: u8, quoting: bool) -> Result<Vec<String>, DataError> {
    let mut start = Vec::new();
    fs_err::File::open(path)?.take(HEADER).read_to_end(&mut start)?;
    let start = strip_bom(&start);
    if quoting {
        let mut reader = csv::ReaderBuilder::new();
        let mut reader = reader.delimiter(delimiter).has_headers(false).from_reader(start);
        let row = reader.records().next().and_then(Result::ok).unwrap_or_default();
        return Ok(row.iter().map(str::to_owned).collect());
    }
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).unwrap_or_default();
    Ok(line.split(char::from(delimiter)).map(str::to_owned).collect())
}

/// Without `labelled` every label is 0.
fn read(path: &Path, format: &Format, labelled: bool) -> Result<Vec<Review>, DataError> {
    let bytes = fs_err::read(path)?;
    check_text(path, &bytes)?;
    let mut wrong = BadLines::default();
    let structure = if format.quoting {
        quoted_structure(path, &bytes, format, &mut wrong)?
    } else {
        plain_structure(path, &bytes, format.delimiter, &mut wrong)?
    };
    let misquote = || misquote(&bytes, format.delimiter).filter(|_| format.quoting);
    let surely = || misquote().filter(|misquote| misquote.kind != MisquoteKind::Within);
    let check = |mut wrong: BadLines| {
        if let Some(misquote) = surely() {
            wrong.explain(misquote.row, misquote.line, || misquote.message());
        }
        wrong.check(path)
    };
    let place = |name: &String| {
        let columns = &structure.columns;
        let mut places = (0..columns.len()).filter(|&place| columns[place] == *name);
        let (line, message) = match (places.next(), places.next()) {
            (Some(place), None) => return Ok(place),
            (Some(_), Some(_)) => (1, repeated_column(name, columns)),
            (None, _) => no_column(name, columns, format.delimiter, surely()),
        };
        Err(DataError::Line { path: path.into(), line, message })
    };
    let label_column = labelled.then_some(&format.label_column);
    let places = Places {
        text: place(&format.text_column)?,
        label: label_column.map(place).transpose()?,
        id: format.id_column.as_ref().map(place).transpose()?,
    };
    let reviews = reviews_of(&structure, &places, &format.labels, &mut wrong);
    check(wrong)?;
    if reviews.is_empty() {
        return Err(DataError::File { path: path.into(), message: "no reviews".into() });
    }

    // Its rows are good, and may yet be others than were meant.
    if let Some(misquote) = surely() {
        let message = misquote.message();
        return Err(DataError::Line { path: path.into(), line: misquote.line, message });
    }
    if !format.quoting
        && let Some(line) = structure.enclosed()
    {
        tracing::warn!(
            "{}:{line}: a quoted field is taken as it stands, with its quotes doubled: probably \
             `quoting = true`",
            path.display()
        );
    }
    Ok(reviews)
}

/// The reviews of the rows; those of which no review can be made are added to `wrong`.
fn reviews_of(
    structure: &Structure,
    places: &Places,
    labels: &[String],
    wrong: &mut BadLines,
) -> Vec<Review> {
    let Structure { lines, rows, .. } = structure;
    let ids: Vec<String> = match places.id {
        Some(id) => rows.iter().map(|row| row[id].to_owned()).collect(),
        None => ids_of(rows.iter().map(|row| &row[places.text])),
    };
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(rows.len());
    let mut reviews = Vec::with_capacity(rows.len());
    for ((id, row), &line) in ids.into_iter().zip(rows).zip(lines) {
        if let Some(first) = seen.get(&id) {
            wrong.add(line, || format!("the id \"{}\" stands on line {first} already", shown(&id)));
            continue;
        }
        seen.insert(id.clone(), line);
        let found = places.label.map(|place| &row[place]);
        let label = found.map_or(Some(0), |found| labels.iter().position(|label| label == found));
        if id.starts_with(BYTE_ORDER_MARK) {
            let message = "the id begins with a byte order mark; remove it, and the header that may \
                           follow it if files were joined here";
            wrong.add(line, || message.into());
        } else if let Some(label) = label {
            reviews.push(Review { id, document: row[places.text].to_owned(), label });
        } else {
            wrong.add(line, || {
                let known: Vec<String> =
                    labels.iter().map(|label| format!("\"{label}\"")).collect();
                let found = shown(found.unwrap_or_default());
                format!("expected a label of {}, found \"{found}\"", known.join(", "))
            });
        }
    }
    reviews
}

/// Refuses reviews of which a class has another number than is documented for their file.
pub fn check_class_counts(
    path: &Path,
    reviews: &[Review],
    documented: &[usize],
) -> Result<(), DataError> {
    // A class without a documented number differs, too.
    let classes = reviews.iter().map(|review| review.label + 1).max().unwrap_or(0);
    let mut counts = vec![0; classes.max(documented.len())];
    for review in reviews {
        counts[review.label] += 1;
    }
    if counts == documented {
        return Ok(());
    }
    Err(DataError::File {
        path: path.into(),
        message: format!("expected {documented:?} reviews per class, found {counts:?}"),
    })
}

/// For each review, whether its document stands in `others`.
pub fn stand_in(reviews: &[Review], others: &[Review]) -> Vec<bool> {
    let others: HashSet<&str> = others.iter().map(|review| review.document.as_str()).collect();
    reviews.iter().map(|review| others.contains(review.document.as_str())).collect()
}

/// Refuses a file of which no line can be told from the next.
fn check_text(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let text = strip_bom(bytes);
    if utf16(bytes).is_some() {
        return Err(DataError::Line { path: path.into(), line: 1, message: not_utf8(path, bytes) });
    }
    let message = if text.trim_ascii().is_empty() {
        "the file is empty".into()
    } else if text.contains(&b'\r') && !text.contains(&b'\n') {
        format!(
            "its lines end in a carriage return alone; write line feeds: `tr '\\r' '\\n' < {} > NEW`",
            path.display()
        )
    } else {
        return Ok(());
    };
    Err(DataError::File { path: path.into(), message })
}

/// Without quoting a line is a row and a delimiter ends a field.
fn plain_structure(
    path: &Path,
    bytes: &[u8],
    delimiter: u8,
    wrong: &mut BadLines,
) -> Result<Structure, DataError> {
    let text = strip_bom(bytes);
    let error = |line, message| DataError::Line { path: path.into(), line, message };
    let mut columns: Vec<String> = Vec::new();
    let (mut lines, mut rows) = (Vec::new(), Vec::new());
    for (index, line) in text.strip_suffix(b"\n").unwrap_or(text).split(|&b| b == b'\n').enumerate()
    {
        let number = index + 1;
        let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line));
        let (line, fields) = match line {
            Ok(line) => (line, line.split(char::from(delimiter)).count()),
            Err(_) if index == 0 => return Err(error(1, not_utf8(path, bytes))),
            Err(_) => {
                wrong.add(number, || not_utf8(path, bytes));
                continue;
            }
        };
        if index == 0 && line.is_empty() {
            return Err(error(1, BLANK_LINE.into()));
        } else if index == 0 {
            columns = line.split(char::from(delimiter)).map(str::to_owned).collect();
        } else if line.is_empty() {
            wrong.add(number, || BLANK_LINE.into());
        } else if line.split(char::from(delimiter)).any(|field| field.ends_with('\r')) {
            wrong.add(number, || CARRIAGE_RETURN.into());
        } else if fields == columns.len() {
            lines.push(number);
            rows.push(line.split(char::from(delimiter)).collect());
        } else {
            wrong.add(number, || fields_message(columns.len(), fields));
        }
    }
    Ok(Structure { columns, lines, rows })
}

/// With quoting a field may hold delimiters and line breaks.
fn quoted_structure(
    path: &Path,
    file: &[u8],
    format: &Format,
    wrong: &mut BadLines,
) -> Result<Structure, DataError> {
    let bytes = strip_bom(file);
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(format.delimiter)
        .flexible(true)
        .has_headers(false)
        .from_reader(bytes);
    let mut columns: Vec<String> = Vec::new();
    let (mut lines, mut rows) = (Vec::new(), Vec::new());
    let mut record = csv::StringRecord::new();
    loop {
        let (blank, line) = row_line(bytes, reader.position());
        for blank in blank..line {
            wrong.add(blank, || BLANK_LINE.into());
        }
        match reader.read_record(&mut record) {
            Ok(false) => return Ok(Structure { columns, lines, rows }),
            Ok(true) if columns.is_empty() => {
                columns = record.iter().map(str::to_owned).collect();
            }
            Ok(true) if record.len() == columns.len() => {
                lines.push(line);
                rows.push(record.clone());
            }
            Ok(true) => wrong.add(line, || fields_message(columns.len(), record.len())),
            Err(source) => {
                let message = || match source.kind() {
                    csv::ErrorKind::Utf8 { .. } => not_utf8(path, file),
                    _ => source.to_string(),
                };
                if columns.is_empty() {
                    return Err(DataError::Line { path: path.into(), line, message: message() });
                }
                // The reader goes on behind the row.
                wrong.add(line, message);
            }
        }
    }
}

/// The first of the blank lines before the row that the reader comes to next, and that row's line.
fn row_line(bytes: &[u8], position: &csv::Position) -> (usize, usize) {
    let (line, start) = (position.line() as usize, position.byte() as usize);
    let skipped = bytes[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    let breaks = skipped.filter(|&&byte| byte == b'\n').count();
    // A row ends for the reader at its carriage return, before the line break.
    let own = usize::from(bytes[..start].ends_with(b"\r"));
    (line + own, line + breaks)
}

fn fields_message(expected: usize, found: usize) -> String {
    format!("expected {expected} fields, as in the header, found {found}")
}

/// Ids for reviews without any: a hash of the text, and which of its occurrences it is.
fn ids_of<'a>(documents: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut occurrences: HashMap<u64, usize> = HashMap::new();
    documents
        .map(|document| {
            let text = hash("document", document);
            let occurrence = occurrences.entry(text).and_modify(|count| *count += 1).or_insert(1);
            format!("{text:016x}-{occurrence}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::UNQUOTE;

    fn nsmc() -> Format {
        Format {
            id_column: Some("id".into()),
            text_column: "document".into(),
            label_column: "label".into(),
            labels: vec!["0".into(), "1".into()],
            delimiter: b'\t',
            quoting: false,
        }
    }

    fn read(bytes: impl AsRef<[u8]>, format: &Format) -> Result<Vec<Review>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reviews.txt");
        fs_err::write(&path, bytes).unwrap();
        read_reviews(&path, format)
    }

    fn unlabelled(text: &str, format: &Format) -> Result<Vec<(String, String)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts.csv");
        fs_err::write(&path, text).unwrap();
        read_texts(&path, format).map_err(|error| error.to_string())
    }

    fn review(id: &str, document: &str, label: usize) -> Review {
        Review { id: id.into(), document: document.into(), label }
    }

    #[test]
    fn every_row_is_kept_as_it_stands() {
        let text = "id\tdocument\tlabel\n\
            1\t아 더빙.. 진짜 짜증나네요\t0\n\
            2\t\t1\n\
            3\t\"인용\" 하나\t1\n\
            4\t\"열리기만 하고\t0\n\
            5\t  앞뒤 빈칸  \t1\n\
            6\t#주석 아님, null, NA, nan\t0\n\
            7\tnull\t1\n\
            8\t1.50\t0\n";
        let expected = [
            review("1", "아 더빙.. 진짜 짜증나네요", 0),
            review("2", "", 1),
            review("3", "\"인용\" 하나", 1),
            review("4", "\"열리기만 하고", 0),
            review("5", "  앞뒤 빈칸  ", 1),
            review("6", "#주석 아님, null, NA, nan", 0),
            review("7", "null", 1),
            review("8", "1.50", 0),
        ];
        assert_eq!(read(text, &nsmc()).unwrap(), expected);
        // The same without a last line break, with DOS line ends, and behind a byte order mark.
        assert_eq!(read(text.trim_end(), &nsmc()).unwrap(), expected);
        assert_eq!(read(text.replace('\n', "\r\n"), &nsmc()).unwrap(), expected);
        assert_eq!(read(format!("\u{feff}{text}"), &nsmc()).unwrap(), expected);
    }

    #[test]
    fn any_file_with_a_text_and_a_label_column_will_do() {
        let format = Format {
            id_column: None,
            text_column: "리뷰".into(),
            label_column: "감정".into(),
            labels: vec!["부정".into(), "중립".into(), "긍정".into()],
            delimiter: b',',
            quoting: true,
        };
        let text = "감정,별점,리뷰\n긍정,10,\"좋다, 정말\"\n중립,5,\"그는 \"\"글쎄\"\"\n라고 했다\"\n부정,1,\n긍정,9,\"좋다, 정말\"\n";
        let reviews = read(text, &format).unwrap();
        let documents: Vec<&str> = reviews.iter().map(|review| review.document.as_str()).collect();
        assert_eq!(documents, ["좋다, 정말", "그는 \"글쎄\"\n라고 했다", "", "좋다, 정말"]);
        assert_eq!(reviews.iter().map(|review| review.label).collect::<Vec<_>>(), [2, 1, 0, 2]);
        assert!(reviews[3].id.ends_with("-2") && reviews[0].id.ends_with("-1"));
        assert_eq!(reviews[0].id[..16], reviews[3].id[..16]);

        let with_id = Format { id_column: Some("별점".into()), ..format.clone() };
        let stray = "별점,리뷰,감정\n10,좋다,긍정\n1,\" 별 \"로 \",부정\n";
        let message = read(stray, &format).unwrap_err().to_string();
        let on = "a quoted field goes on after its closing quote";
        assert!(message.ends_with(&format!("reviews.txt:3: {on}; {UNQUOTE}")), "{message}");
        let stray = "별점,리뷰,감정\n1,가,긍정\n2,\" 나,긍정\n3,\" 다 \"라 \",부정\n";
        let message = read(stray, &format).unwrap_err().to_string();
        let on = "the field that a quote opens here has its closing quote on line 4, and goes on";
        assert!(message.contains(&format!("reviews.txt:3: {on}")), "{message}");
        // A carriage return by itself: for one reader the end of a row, for the other a character.
        for stray in ["\r2,나,부정", "2,나\r,부정", "2,나,부정\r3,다,부정"] {
            let stray = format!("별점,리뷰,감정\r\n1,\"가\r\",긍정\r\n{stray}\r\n");
            let message = read(&stray, &with_id).unwrap_err().to_string();
            assert!(message.contains("carriage return") || message.contains("fields"), "{message}");
        }
        let within = "별점,리뷰,감정\r\n1,\"가\r나\",긍정\r\n";
        assert_eq!(read(within, &with_id).unwrap()[0].document, "가\r나");

        let broken = "감정,별점,리뷰\n긍정,10,좋다\n부정,\"1\n2\",별로\n부정,별로\n";
        let message = read(broken, &format).unwrap_err().to_string();
        assert!(message.ends_with(":5: expected 3 fields, as in the header, found 2"), "{message}");
    }

    #[test]
    fn texts_need_no_labels() {
        let row = |id: &str, text: &str| (id.to_owned(), text.to_owned());
        let format = Format { delimiter: b',', quoting: true, ..nsmc() };
        let texts = "document,id,label\n\"좋다, 정말\",7,\n,8,아직\n";
        assert_eq!(unlabelled(texts, &format), Ok(vec![row("7", "좋다, 정말"), row("8", "")]));
        let message = unlabelled(&format!("{texts}나쁘다,7,0\n"), &format).unwrap_err();
        assert!(message.ends_with(":4: the id \"7\" stands on line 2 already"), "{message}");

        let alone = Format { id_column: None, ..nsmc() };
        let texts = unlabelled("document\n좋다\n\"인용\" 하나\n", &alone).unwrap();
        assert_eq!(texts.iter().map(|text| &text.1).collect::<Vec<_>>(), ["좋다", "\"인용\" 하나"]);
        let message = unlabelled("document\n좋다\n\n나쁘다\n", &alone).unwrap_err();
        assert!(message.ends_with(":3: blank line; remove it"), "{message}");
    }

    #[test]
    fn a_bad_row_is_named_by_its_line() {
        let good = "id\tdocument\tlabel\n1\t좋다\t1\n";
        for (tail, expected) in [
            ("2\t좋다\n", ":3: expected 3 fields, as in the header, found 2"),
            ("2\t좋\t다\t1\n", ":3: expected 3 fields, as in the header, found 4"),
            ("\n2\t좋다\t1\n", ":3: blank line; remove it"),
            ("\t\n", ":3: expected 3 fields, as in the header, found 2"),
            ("2\t좋다\t2\n", ":3: expected a label of \"0\", \"1\", found \"2\""),
            ("2\t좋다\t\n", ":3: expected a label of \"0\", \"1\", found \"\""),
            ("2\t좋다\r\t1\n", "found one at the end of a field"),
            ("2\t별로\t0\n1\t별로\t0\n", ":4: the id \"1\" stands on line 2 already"),
        ] {
            let message = read(format!("{good}{tail}"), &nsmc()).unwrap_err().to_string();
            assert!(message.ends_with(expected), "{expected} is not in {message}");
        }
    }

    #[test]
    fn every_bad_row_is_told_at_once() {
        let text = "1\t가\t\n2\t나\t1\n3\t다\n1\t라\t1\n\n5\t마\t9\n\u{feff}6\t바\t0\n7\t사\tx\n\
                    8\t아\t0\n";
        let expected = "reviews.txt:2: expected a label of \"0\", \"1\", found \"\" (6 more lines are wrong: 4, \
                        5, 6, 7, 8, …)";
        for (delimiter, quoting) in [(b'\t', false), (b'\t', true), (b',', true)] {
            let format = Format { delimiter, quoting, ..nsmc() };
            let text = format!("id\tdocument\tlabel\n{text}");
            let text = text.replace('\t', &char::from(delimiter).to_string());
            for text in [text.replace('\n', "\r\n"), format!("\u{feff}{text}"), text] {
                let message = read(&text, &format).unwrap_err().to_string();
                assert!(message.ends_with(expected), "{message}: {text:?}");
            }
        }
        // The first of an id is on line 2 for each of the others; bytes that are not UTF-8 hide no line.
        let text = b"id\tdocument\tlabel\n1\ta\t1\n1\tb\t1\n2\t\xff\t1\n1\tc\t1\n3\t\xff\t1\n";
        for quoting in [false, true] {
            let message = read(text, &Format { quoting, ..nsmc() }).unwrap_err().to_string();
            let expected =
                ":3: the id \"1\" stands on line 2 already (3 more lines are wrong: 4, 5, 6)";
            assert!(message.ends_with(expected), "{message}");
        }
        let text = "id\tdocument\tlabel\n1\ta\r\t1\n2\tb\t1\n3\tc\r\t1\n";
        let message = read(text, &nsmc()).unwrap_err().to_string();
        assert!(message.ends_with(&format!(":2: {CARRIAGE_RETURN} (1 more line is wrong: 4)")));
    }

    #[test]
    fn what_is_found_is_shown_on_one_line_and_not_whole() {
        let long = "가".repeat(1_000);
        let shown = "가".repeat(100);
        for (label, expected) in [
            ("\0", "\\0"),
            ("\u{feff}1", "\\u{feff}1"),
            ("'1'", "'1'"),
            (&long, &format!("{shown}…")),
        ] {
            let text = format!("id\tdocument\tlabel\n1\t가\t{label}\n");
            let message = read(text, &nsmc()).unwrap_err().to_string();
            assert!(message.ends_with(&format!(", found \"{expected}\"")), "{message}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_in_no_id() {
        let text = "id\tdocument\tlabel\n1\t가\t1\n\u{feff}id\tdocument\tlabel\n2\t나\t1\n";
        let message = read(text, &nsmc()).unwrap_err().to_string();
        let expected =
            "reviews.txt:3: the id begins with a byte order mark; remove it, and the header";
        assert!(message.contains(expected), "{message}");
        let text = "id\tdocument\tlabel\n1\t\u{feff}가\0\t1\n";
        assert_eq!(read(text, &nsmc()).unwrap(), [review("1", "\u{feff}가\0", 1)]);
    }

    #[test]
    fn of_bytes_that_are_not_utf8_the_line_and_the_remedy_are_told() {
        let cp949 = "; it may be CP949 (EUC-KR): `iconv -f CP949 -t UTF-8 ";
        let cut = ", though the text before it is: cut short, or of another encoding; correct it, or \
                   drop its bytes: `iconv -c -f UTF-8 -t UTF-8 ";
        for (rows, line, expected) in [
            (b"1\ta\t1\n2\t\xc1\xc1\xb4\xd9\t1\n".as_slice(), 3, cp949),
            (b"1\t\xeb\x82\t1\n2\ta\t1\n", 2, cp949),
            (b"1\t\xea\xb0\x80\t1\r\n2\t\xeb\x82\t1\r\n", 3, cut),
            (b"1\t\xea\xb0\x80\xeb\x82\t1\n", 2, cut),
        ] {
            for (mark, quoting) in
                [("", false), ("", true), ("\u{feff}", false), ("\u{feff}", true)]
            {
                let header = format!("{mark}id\tdocument\tlabel\n");
                let format = Format { quoting, ..nsmc() };
                let message = read([header.as_bytes(), rows].concat(), &format).unwrap_err();
                let message = message.to_string();
                let expected = format!("reviews.txt:{line}: not valid UTF-8{expected}");
                assert!(message.contains(&expected), "{expected} is not in {message}");
                assert!(message.ends_with("reviews.txt > NEW`"), "{message}");
            }
        }
        let header = b"id\t\xb8\xae\xba\xe4\tlabel\n1\ta\t1\n";
        let message = read(header, &nsmc()).unwrap_err().to_string();
        assert!(message.contains(&format!(":1: not valid UTF-8{cp949}")), "{message}");
    }

    #[test]
    fn utf16_is_known_with_and_without_its_mark() {
        let text = "id\tdocument\tlabel\n1\t가\t1\n";
        let little =
            |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let big = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
        let (marked, korean) = (format!("\u{feff}{text}"), "번호\t리뷰\n");
        for (bytes, encoding) in [
            (little(&marked), "UTF-16"),
            (big(&marked), "UTF-16"),
            (little(text), "UTF-16LE"),
            (big(text), "UTF-16BE"),
            (little(korean), "UTF-16LE"),
            (big(korean), "UTF-16BE"),
        ] {
            for quoting in [false, true] {
                let format = Format { quoting, ..nsmc() };
                let message = read(&bytes, &format).unwrap_err().to_string();
                let is = format!(":1: not valid UTF-8; it is {encoding}: `iconv -f {encoding} -t ");
                assert!(message.contains(&is), "{is} is not in {message}");
                assert!(message.ends_with("reviews.txt > NEW`"), "{message}");
            }
        }
        // What a disk that lost it gives.
        let message = read([0; 4096], &nsmc()).unwrap_err().to_string();
        assert!(message.contains("expected a column `document`, found \\0\\0"), "{message}");
    }

    #[test]
    fn a_file_without_lines_is_refused_as_a_whole() {
        for quoting in [false, true] {
            let format = Format { quoting, ..nsmc() };
            for empty in ["", "\u{feff}", "\n", "\r\n\r\n"] {
                let message = read(empty, &format).unwrap_err().to_string();
                assert!(message.ends_with("reviews.txt: the file is empty"), "{message}");
            }
            let message = read("\u{feff}id\tdocument\tlabel\r1\t가\t1\r", &format).unwrap_err();
            let message = message.to_string();
            let expected = "reviews.txt: its lines end in a carriage return alone; write line feeds: `tr \
                            '\\r' '\\n' < ";
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn another_delimiter_in_the_header_is_named() {
        let (tab, comma) = (nsmc(), Format { delimiter: b',', quoting: true, ..nsmc() });
        for (text, format, found, advice) in [
            (
                "id\tdocument\tlabel\n1\t좋다, 정말\t1\n",
                &comma,
                "id\\tdocument\\tlabel",
                "`\\t`, not `,`",
            ),
            (
                "id,document,label\n1,\"좋다\n정말\",1\n",
                &tab,
                "id,document,label",
                "`,`, not `\\t`",
            ),
            ("id;document;label\n1;가;1\n", &comma, "id;document;label", "`;`, not `,`"),
            ("id|document|label\n1|가|1\n", &tab, "id|document|label", "`|`, not `\\t`"),
            ("id|a;document;label\n", &tab, "id|a;document;label", "`;`, not `\\t`"),
        ] {
            let message = read(text, format).unwrap_err().to_string();
            let expected = format!(
                "reviews.txt:1: expected a column `document`, found one column, `{found}`: the delimiter \
                 is probably {advice}"
            );
            assert!(message.ends_with(&expected), "{expected} is not in {message}");
        }
        // Its quotes are in the wrong place for the delimiter alone.
        let quoted = Format { quoting: true, ..nsmc() };
        let message = read("\"id\",\"document\",\"label\"\n", &quoted).unwrap_err().to_string();
        assert!(message.ends_with("the delimiter is probably `,`, not `\\t`"), "{message}");
        let message = read("document\n가\n", &nsmc()).unwrap_err().to_string();
        assert!(message.ends_with("expected a column `label`, found document"), "{message}");
    }

    #[test]
    fn a_bad_row_of_a_quoted_file_is_named_by_its_line() {
        let format = Format { delimiter: b',', quoting: true, ..nsmc() };
        let repeated = "the id \"1\" stands on line 2 already";
        for (text, expected) in [
            ("1,가,1\n2,나,9\n", ":3: expected a label of"),
            ("1,가,9\n", ":2: expected a label of"),
            ("1,가,1\n2,나\n", ":3: expected 3 fields"),
            ("1,\"가\n나\n\n\",1\n2,나,1\n1,다,1\n", &format!(":7: {repeated}")),
            ("1,가,1\n\n2,나,1\n", ":3: blank line; remove it"),
            ("1,가,1\n2,나,1\n\n", ":4: blank line; remove it"),
            ("\n\n1,가,1\n", ":2: blank line; remove it"),
        ] {
            let text = format!("id,document,label\n{text}");
            for text in [text.replace('\n', "\r\n"), format!("\u{feff}{text}"), text] {
                let message = read(&text, &format).unwrap_err().to_string();
                assert!(message.contains(expected), "{expected} is not in {message}: {text:?}");
            }
        }
        for (text, expected) in [
            ("id,text,label\r\n1,가,1\r\n", ":1: expected a column `document`"),
            ("\r\nid,document,label\r\n1,가,1\r\n", ":1: blank line; remove it"),
            (
                "id,document,label\r\n1,가,1\r\r\n2,나,1\r\n",
                ":2: a carriage return that ends no line",
            ),
        ] {
            let message = read(text, &format).unwrap_err().to_string();
            assert!(message.contains(expected), "{expected} is not in {message}: {text:?}");
        }
    }

    #[test]
    fn a_quote_in_the_wrong_place_is_named_by_its_line() {
        let format = Format { delimiter: b',', quoting: true, ..nsmc() };
        let on = "a quoted field goes on after its closing quote";
        let open = "the quote that opens here is never closed";
        let later = "the field that a quote opens here has its closing quote on line 3, and goes on \
                     after it";
        for (rows, line, what) in [
            ("1,가,1\n2,\"별로\" 야,0\n3,다,1\n", 3, on),
            ("1,\"가\n나\",1\n2,\"별로\"야\"\",0\n", 4, on),
            ("1,화면 2\" 짜리,1\n2,\"별로\" 야,0\n", 3, on),
            // What follows an open quote is one field: too few of them, or a label.
            ("1,가,1\n2,나,0\n3,\"다,1\n4,라,0\n", 4, open),
            ("1,가,1\n2,나,\"0\n3,다,1\n", 3, open),
            // It opens below the line of its row, whose other fields have lines of their own.
            ("1,가,1\n\"2\n\",\"나,0\n3,다,1\n", 4, open),
            ("1,\"가,1\n2,\"나\",0\n", 2, later),
        ] {
            let text = format!("id,document,label\n{rows}");
            for text in [text.replace('\n', "\r\n"), format!("\u{feff}{text}"), text] {
                let message = read(&text, &format).unwrap_err().to_string();
                let expected = format!("reviews.txt:{line}: {what}; {UNQUOTE}");
                assert!(message.ends_with(&expected), "{expected} is not in {message}: {text:?}");
            }
        }
        let message = read("id,\"document,label\n1,가|나,1\n", &format).unwrap_err().to_string();
        assert!(message.ends_with(&format!("reviews.txt:1: {open}; {UNQUOTE}")), "{message}");
        // Each reader takes all that follows as a text, and the row as good.
        let last = "id,label,document\n1,1,가\n2,0,\"나\n3,1,다\n";
        let message = read(last, &format).unwrap_err().to_string();
        assert!(message.ends_with(&format!("reviews.txt:3: {open}; {UNQUOTE}")), "{message}");
        // A row above it is wrong by itself; a quote that most readers take as it is explains nothing.
        let above = "id,document,label\n1,가\n2,\"나,1\n3,다,1\n";
        let message = read(above, &format).unwrap_err().to_string();
        let expected = ":2: expected 3 fields, as in the header, found 2 (1 more line is wrong: 3)";
        assert!(message.ends_with(expected), "{message}");
        let within = "id,document,label\n1,화면 2\" 짜리,1\n2,나,9\n";
        let message = read(within, &format).unwrap_err().to_string();
        assert!(
            message.ends_with(":3: expected a label of \"0\", \"1\", found \"9\""),
            "{message}"
        );

        let good = "id,document,label\r\n1,\"\"\"가\"\", \r나\",1\r\n2,,\"0\"";
        assert_eq!(misquote(good.as_bytes(), b','), None);
        let kind =
            |text: &str| misquote(text.as_bytes(), b',').map(|found| (found.line, found.kind));
        assert_eq!(kind("a,b\n1,2\"\n"), Some((2, MisquoteKind::Within)));
        assert_eq!(kind("a,b\n1\r2,3\n"), Some((2, MisquoteKind::CarriageReturn)));
    }

    #[test]
    fn a_missing_column_lists_those_there_are() {
        let message = read("id\ttext\tlabel\n1\ta\t1\n", &nsmc()).unwrap_err().to_string();
        assert!(
            message.contains(":1: expected a column `document`, found id, text, label"),
            "{message}"
        );
        let message = read("id\tdocument\tlabel\n", &nsmc()).unwrap_err().to_string();
        assert!(message.contains("no reviews"), "{message}");
        let message = read("\nid\tdocument\tlabel\n", &nsmc()).unwrap_err().to_string();
        assert!(message.ends_with(":1: blank line; remove it"), "{message}");
    }

    #[test]
    fn a_column_that_stands_twice_is_refused_where_it_is_needed() {
        for quoting in [false, true] {
            let format = Format { quoting, ..nsmc() };
            for name in ["id", "document", "label"] {
                let text = format!("id\tdocument\tlabel\t{name}\n1\ta\t1\t1\n");
                let message = read(&text, &format).unwrap_err().to_string();
                let expected = format!(
                    "reviews.txt:1: expected one column `{name}`, found 2 of id, document, label, \
                     {name}; rename or remove the others"
                );
                assert!(message.ends_with(&expected), "{message}");
                assert_eq!(unlabelled(&text, &format).is_err(), name != "label");
            }
            let others = "stars\tid\tdocument\tlabel\tstars\n9\t1\ta\t1\t8\n";
            assert_eq!(read(others, &format).unwrap(), [review("1", "a", 1)]);
        }
    }

    #[test]
    fn a_file_that_was_written_with_quotes_is_told_from_one_whose_texts_have_some() {
        let line = |rows: &str| {
            let (path, mut wrong) = (Path::new("a.tsv"), BadLines::default());
            let text = format!("id\tdocument\tlabel\n{rows}");
            let structure = plain_structure(path, text.as_bytes(), b'\t', &mut wrong).unwrap();
            wrong.check(path).unwrap();
            structure.enclosed()
        };
        for (rows, expected) in [
            ("1\t좋다\t1\n2\t\"그는 \"\"글쎄\"\" 했다\"\t0\n", Some(3)),
            // It begins with a quotation, and ends with another.
            ("1\t\"\"\"좋다\"\" 또는 \"\"싫다\"\"\"\t1\n", Some(2)),
            ("1\t\"\"\"글쎄\"\" 했다\"\t0\n2\t\"좋다, 정말\"\t1\n", Some(2)),
            // A text as somebody wrote it.
            ("1\t\"좋다, 정말\"\t1\n", None),
            ("1\t\"\"\t1\n2\t나\t1\n", None),
            // One quote that nobody doubled or enclosed.
            ("1\t\"그는 \"\"글쎄\"\" 했다\"\t0\n2\t화면 2\" 짜리\t1\n", None),
            ("1\t\"그는 \"\"글쎄\"\" 했다\"\t0\n2\t\"열리기만 하고\t1\n", None),
            ("1\t\"그는 \"\"글쎄\"\" 했다\"\t0\n2\t\"인용\" 하나\"\t1\n", None),
            ("1\t\"그는 \"\"글쎄\"\" 했다\"\t0\n2\t\"\t1\n", None),
            // NSMC's own: 3 quotes around a text, 4 and 7 where it has others within.
            (
                "1\t\"\"\"신의 존재에 관한 불후의 \"\"\"\"걸작\"\"\"\"\"\"\"\t1\n2\t\"\"\"그냥\"\"\"\t0\n",
                None,
            ),
        ] {
            assert_eq!(line(rows), expected, "{rows}");
        }
        // Who encloses every field encloses the header.
        let format = Format { id_column: None, ..nsmc() };
        let text = "\"id\"\t\"document\"\t\"label\"\n\"1\"\t\"가\"\t\"1\"\n";
        let message = read(text, &format).unwrap_err().to_string();
        let expected = ":1: expected a column `document`, found \"id\", \"document\", \"label\": \
                        probably `quoting = true`";
        assert!(message.ends_with(expected), "{message}");
    }

    #[test]
    #[ignore = "needs NSMC: set NSMC_MIRROR and run with --ignored"]
    fn nsmc_is_not_taken_for_a_file_that_was_written_with_quotes() {
        let mirror = std::env::var_os("NSMC_MIRROR").expect("NSMC_MIRROR names a mirror");
        for file in ["ratings_train.txt", "ratings_test.txt"] {
            let path = Path::new(&mirror).join("nsmc").join(file);
            let bytes = fs_err::read(&path).unwrap();
            let mut wrong = BadLines::default();
            let structure = plain_structure(&path, &bytes, b'\t', &mut wrong).unwrap();
            assert!(structure.rows.iter().any(|row| row[1].starts_with('"')), "{file}");
            assert_eq!(structure.enclosed(), None, "{file}");
        }
    }

    #[test]
    fn the_columns_of_a_file_are_those_of_its_first_row() {
        let columns = |start: &[u8], delimiter, quoting| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("texts");
            fs_err::write(&path, start).unwrap();
            read_columns(&path, delimiter, quoting).unwrap()
        };
        for (start, delimiter, quoting, expected) in [
            ("id\tdocument\n1\ta\n", b'\t', false, &["id", "document"][..]),
            ("\u{feff}id;\"a;b\"\r\n1;2\r\n", b';', true, &["id", "a;b"]),
            ("\u{feff}id;\"a;b\"\r\n1;2\r\n", b';', false, &["id", "\"a", "b\""]),
            ("\"id\",\"two\nlines\"\n", b',', true, &["id", "two\nlines"]),
            ("좋다\n", b'\t', true, &["좋다"]),
        ] {
            assert_eq!(columns(start.as_bytes(), delimiter, quoting), expected, "{start}");
        }
        for quoting in [false, true] {
            let nothing = columns(b"", b'\t', quoting);
            assert!(nothing.iter().all(String::is_empty), "{nothing:?}");
            let cp949 = columns(b"id\t\xb8\xae\xba\xe4\n1\ta\n", b'\t', quoting);
            assert!(!cp949.contains(&"id".into()), "{cp949:?}");
        }
        // What follows is not looked at.
        let long = [b"id\tdocument\n".as_slice(), &vec![0xff; 100_000]].concat();
        assert_eq!(columns(&long, b'\t', false), ["id", "document"]);
        assert_eq!(columns(&long, b'\t', true), ["id", "document"]);
    }

    #[test]
    fn class_counts_are_checked() {
        let reviews = [review("1", "a", 0), review("2", "b", 1), review("3", "c", 1)];
        let path = Path::new("ratings.txt");
        check_class_counts(path, &reviews, &[1, 2]).unwrap();
        let message = check_class_counts(path, &reviews, &[2, 1]).unwrap_err().to_string();
        assert_eq!(message, "ratings.txt: expected [2, 1] reviews per class, found [1, 2]");
        let message = check_class_counts(path, &reviews, &[1]).unwrap_err().to_string();
        assert_eq!(message, "ratings.txt: expected [1] reviews per class, found [1, 2]");
    }

    #[test]
    fn documents_that_stand_in_another_file_are_found() {
        let (a, b) = ([review("1", "a", 0), review("2", "", 1)], [review("9", "", 0)]);
        assert_eq!(stand_in(&a, &b), [false, true]);
    }
}
