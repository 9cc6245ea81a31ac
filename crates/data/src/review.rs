use std::collections::{HashMap, HashSet};
use std::path::Path;

use polars::prelude::{CsvReadOptions, DataFrame, SerReader};

use crate::DataError;
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

/// What is wrong where two readers of one file make different texts of it.
const QUOTES: &str = "expected a quoted field to end with its quote, quotes in it to be doubled, and a \
                      carriage return outside of quotes at the end of a line alone";

/// The same where nothing quotes.
const CARRIAGE_RETURN: &str = "expected a carriage return at the end of a line alone, found one at the \
                               end of a field";

/// A blank line is a row to one reader and nothing to the other.
const BLANK_LINE: &str = "blank line; remove it";

/// Where the rows of a file start, after every row was found to have as many fields as the header.
struct Structure {
    columns: Vec<String>,
    lines: Vec<usize>,
    /// The fields of each row.
    rows: Vec<csv::StringRecord>,
}

/// Reads every row of a file with a header, in its order.
///
/// A row with another number of fields than the header, a label that is not among
/// [`Format::labels`], an id that occurs twice, bytes that are not UTF-8, a blank line and a missing
/// column are errors that name the line.
pub fn read_reviews(path: &Path, format: &Format) -> Result<Vec<Review>, DataError> {
    let bytes = fs_err::read(path)?;
    let structure = if format.quoting {
        quoted_structure(path, &bytes, format)?
    } else {
        plain_structure(path, &bytes, format.delimiter)?
    };
    let place = |name: &String| {
        let place = structure.columns.iter().position(|column| column == name);
        place.ok_or_else(|| DataError::Line {
            path: path.into(),
            line: 1,
            message: format!("expected a column `{name}`, found {}", structure.columns.join(", ")),
        })
    };
    let wanted = [Some(&format.text_column), Some(&format.label_column), format.id_column.as_ref()];
    for name in wanted.into_iter().flatten() {
        place(name)?;
    }
    let misquoted = || {
        let line = misquoted_line(&bytes, format.delimiter).filter(|_| format.quoting)?;
        Some(DataError::Line { path: path.into(), line, message: QUOTES.into() })
    };
    // Its structure was found good: what is left are quotes in the wrong place.
    let frame = read_frame(&bytes, format).map_err(|reason| {
        misquoted().unwrap_or_else(|| DataError::Polars { path: path.into(), reason })
    })?;
    let suspect = if format.quoting { QUOTES } else { CARRIAGE_RETURN };
    let (rows, read) = (structure.rows.len(), frame.height());
    if rows != read {
        return Err(misquoted().unwrap_or_else(|| {
            let message = format!("{suspect}: one reader finds {rows} rows, another {read}");
            DataError::File { path: path.into(), message }
        }));
    }
    let texts = |name: &String| -> Result<Vec<String>, DataError> {
        let column = frame.column(name).and_then(|column| column.str().cloned());
        let column = column.map_err(|reason| DataError::Polars { path: path.into(), reason })?;
        let texts: Vec<String> =
            column.iter().map(|text| text.unwrap_or_default().to_owned()).collect();
        // Of quotes in the wrong place, and of a carriage return at the end of a field, each reader makes
        // something else.
        let place = place(name)?;
        let differs =
            structure.rows.iter().zip(&texts).position(|(row, text)| row[place] != **text);
        match differs {
            None => Ok(texts),
            Some(row) => Err(DataError::Line {
                path: path.into(),
                line: structure.lines[row],
                message: suspect.into(),
            }),
        }
    };

    let documents = texts(&format.text_column)?;
    let labels = texts(&format.label_column)?;
    let ids = match &format.id_column {
        Some(column) => texts(column)?,
        None => ids_of(&documents),
    };
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(ids.len());
    let mut reviews = Vec::with_capacity(ids.len());
    for ((id, document), (label, &line)) in
        ids.into_iter().zip(documents).zip(labels.iter().zip(&structure.lines))
    {
        let error = |message| DataError::Line { path: path.into(), line, message };
        if let Some(first) = seen.insert(id.clone(), line) {
            return Err(error(format!("the id \"{id}\" stands on line {first} already")));
        }
        let label = format.labels.iter().position(|known| known == label).ok_or_else(|| {
            let known: Vec<String> =
                format.labels.iter().map(|label| format!("\"{label}\"")).collect();
            error(format!("expected a label of {}, found \"{label}\"", known.join(", ")))
        })?;
        reviews.push(Review { id, document, label });
    }
    if reviews.is_empty() {
        return Err(DataError::File { path: path.into(), message: "no reviews".into() });
    }
    Ok(reviews)
}

/// Checks the number of reviews of each class against what is documented for the file.
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

fn read_frame(bytes: &[u8], format: &Format) -> polars::error::PolarsResult<DataFrame> {
    CsvReadOptions::default()
        .with_has_header(true)
        // No inference: every column is text.
        .with_infer_schema_length(Some(0))
        .map_parse_options(|options| {
            options
                .with_separator(format.delimiter)
                .with_quote_char(format.quoting.then_some(b'"'))
                // An empty document is a document.
                .with_missing_is_null(false)
        })
        .into_reader_with_file_handle(std::io::Cursor::new(bytes))
        .finish()
}

/// Without quoting a line is a row and a delimiter ends a field.
fn plain_structure(path: &Path, bytes: &[u8], delimiter: u8) -> Result<Structure, DataError> {
    let text = strip_bom(bytes);
    let mut columns: Vec<String> = Vec::new();
    let (mut lines, mut rows) = (Vec::new(), Vec::new());
    for (index, line) in text.strip_suffix(b"\n").unwrap_or(text).split(|&b| b == b'\n').enumerate()
    {
        let line_number = index + 1;
        let error = |message| DataError::Line { path: path.into(), line: line_number, message };
        let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line))
            .map_err(|_| error(not_utf8(path, bytes)))?;
        let fields = line.split(char::from(delimiter)).count();
        if index == 0 {
            columns = line.split(char::from(delimiter)).map(str::to_owned).collect();
        } else if fields == columns.len() {
            lines.push(line_number);
            rows.push(line.split(char::from(delimiter)).collect());
        } else if line.is_empty() {
            return Err(error(BLANK_LINE.into()));
        } else {
            return Err(error(fields_message(columns.len(), fields)));
        }
    }
    Ok(Structure { columns, lines, rows })
}

/// With quoting a field may hold delimiters and line breaks.
fn quoted_structure(path: &Path, bytes: &[u8], format: &Format) -> Result<Structure, DataError> {
    let bytes = strip_bom(bytes);
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(format.delimiter)
        .flexible(true)
        .has_headers(false)
        .from_reader(bytes);
    let mut columns: Vec<String> = Vec::new();
    let (mut lines, mut rows) = (Vec::new(), Vec::new());
    let mut record = csv::StringRecord::new();
    loop {
        let error = |line, message| DataError::Line { path: path.into(), line, message };
        let line = row_line(bytes, reader.position())
            .map_err(|blank| error(blank, BLANK_LINE.to_owned()))?;
        let read = reader.read_record(&mut record).map_err(|source| {
            let message = match source.kind() {
                csv::ErrorKind::Utf8 { .. } => not_utf8(path, bytes),
                _ => source.to_string(),
            };
            error(line, message)
        })?;
        if !read {
            return Ok(Structure { columns, lines, rows });
        }
        if columns.is_empty() {
            columns = record.iter().map(str::to_owned).collect();
        } else if record.len() == columns.len() {
            lines.push(line);
            rows.push(record.clone());
        } else {
            return Err(error(line, fields_message(columns.len(), record.len())));
        }
    }
}

/// The line of the row that the reader comes to next, or of a blank line before it.
fn row_line(bytes: &[u8], position: &csv::Position) -> Result<usize, usize> {
    let (line, start) = (position.line() as usize, position.byte() as usize);
    let skipped = bytes[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    let breaks = skipped.filter(|&&byte| byte == b'\n').count();
    // A row ends for the reader at its carriage return, before the line break.
    let own = usize::from(bytes[..start].ends_with(b"\r"));
    if breaks > own { Err(line + own) } else { Ok(line + breaks) }
}

/// The line of the first quote that stands where none may, of the first carriage return alone, or of a
/// quote that is never closed. A quote within a field that does not begin with one comes last: most
/// readers take it as it is.
fn misquoted_line(bytes: &[u8], delimiter: u8) -> Option<usize> {
    enum State {
        Start,
        Plain,
        Quoted,
        Closed,
    }
    let (mut state, mut line, mut opened, mut within) = (State::Start, 1, 1, None);
    let mut bytes = strip_bom(bytes).iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let ends = byte == delimiter || byte == b'\n' || byte == b'\r';
        if byte == b'\r' && !matches!(state, State::Quoted) && bytes.peek() != Some(&b'\n') {
            return Some(line);
        }
        state = match state {
            State::Quoted if byte == b'"' => State::Closed,
            State::Quoted => State::Quoted,
            State::Closed if byte == b'"' => State::Quoted,
            State::Closed if !ends => return Some(line),
            State::Start if byte == b'"' => {
                opened = line;
                State::Quoted
            }
            _ if ends => State::Start,
            _ => {
                if byte == b'"' {
                    within.get_or_insert(line);
                }
                State::Plain
            }
        };
        line += usize::from(byte == b'\n');
    }
    if matches!(state, State::Quoted) { Some(opened) } else { within }
}

/// What is wrong with a file that is not UTF-8, and what to do. Of encodings it may be in, those that
/// spreadsheets write in Korea.
fn not_utf8(path: &Path, bytes: &[u8]) -> String {
    let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    let (is, encoding) = match utf16 {
        true => ("it is UTF-16", "UTF-16"),
        false => ("it may be CP949 (EUC-KR)", "CP949"),
    };
    format!("not valid UTF-8; {is}: `iconv -f {encoding} -t UTF-8 {} > NEW`", path.display())
}

fn fields_message(expected: usize, found: usize) -> String {
    format!("expected {expected} fields, as in the header, found {found}")
}

fn strip_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Ids for reviews without any: a hash of the text, and which of its occurrences it is.
fn ids_of(documents: &[String]) -> Vec<String> {
    let mut occurrences: HashMap<u64, usize> = HashMap::new();
    documents
        .iter()
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
        assert!(message.ends_with(&format!("reviews.txt:3: {QUOTES}")), "{message}");
        let stray = "별점,리뷰,감정\n1,가,긍정\n2,\" 나,긍정\n3,\" 다 \"라 \",부정\n";
        let message = read(stray, &format).unwrap_err().to_string();
        assert!(message.contains("reviews.txt:3: expected a quoted field to end"), "{message}");
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
        let mut bytes = good.as_bytes().to_vec();
        bytes.extend(b"2\t\xec\xa2\t1\n");
        let message = read(bytes, &nsmc()).unwrap_err().to_string();
        let remedy = "reviews.txt > NEW`";
        assert!(message.contains(":3: not valid UTF-8; it may be CP949"), "{message}");
        assert!(message.ends_with(remedy), "{message}");
        let utf16: Vec<u8> =
            format!("\u{feff}{good}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        let message = read(utf16, &nsmc()).unwrap_err().to_string();
        assert!(message.contains(":1: not valid UTF-8; it is UTF-16: `iconv"), "{message}");
        assert!(message.ends_with(remedy), "{message}");
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
            ("id,document,label\r1,가,1\r2,나,1\r", ": expected a quoted field to end"),
            ("id,document,label\r\n1,가,1\r\r\n2,나,1\r\n", ": expected a quoted field to end"),
        ] {
            let message = read(text, &format).unwrap_err().to_string();
            assert!(message.contains(expected), "{expected} is not in {message}: {text:?}");
        }
        let broken = b"id,document,label\r\n1,a,1\r\n2,\xec\xa2,1\r\n";
        let message = read(broken, &format).unwrap_err().to_string();
        assert!(
            message.contains(":3: not valid UTF-8; it may be CP949 (EUC-KR): `iconv -f CP949"),
            "{message}"
        );
    }

    #[test]
    fn a_quote_in_the_wrong_place_is_named_by_its_line() {
        let format = Format { delimiter: b',', quoting: true, ..nsmc() };
        for (rows, line) in [
            ("1,가,1\n2,\"별로\" 야,0\n3,다,1\n", 3),
            ("1,\"가\n나\",1\n2,\"별로\"야\"\",0\n", 4),
            ("1,화면 2\" 짜리,1\n2,\"별로\" 야,0\n", 3),
            ("1,가,1\n2,나,0\n3,\"다,1\n", 4),
        ] {
            let text = format!("id,document,label\n{rows}");
            let error = read(&text, &format).unwrap_err();
            let message = error.to_string();
            if rows.ends_with("\"다,1\n") {
                // What follows an open quote is one field.
                assert!(message.contains(":4: expected 3 fields"), "{message}");
                assert_eq!(misquoted_line(text.as_bytes(), b','), Some(line));
            } else {
                assert!(message.ends_with(&format!("reviews.txt:{line}: {QUOTES}")), "{message}");
            }
        }
        let good = "id,document,label\r\n1,\"\"\"가\"\", \r나\",1\r\n2,,\"0\"";
        assert_eq!(misquoted_line(good.as_bytes(), b','), None);
        assert_eq!(misquoted_line("a,b\n1,2\"\n".as_bytes(), b','), Some(2));
        assert_eq!(misquoted_line("a,b\n1\r2,3\n".as_bytes(), b','), Some(2));
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
        assert!(read("", &nsmc()).is_err());
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
