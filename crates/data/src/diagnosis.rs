//! What is wrong with a data file, and what to do about it.

use std::path::Path;

/// What to do about a quote in the wrong place.
pub(crate) const UNQUOTE: &str = "close it, double the quotes within a field, or set `quoting` to \
                                  false if `\"` is a character like any other";

pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// A quote, or a carriage return, in the wrong place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misquote {
    /// The line that its row starts on.
    pub(crate) row: usize,
    /// The line it stands on; of a field, the one it starts on.
    pub(crate) line: usize,
    pub(crate) kind: MisquoteKind,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MisquoteKind {
    /// A quote that is never closed.
    Open,
    /// A field that goes on after its closing quote, on this line.
    Followed(usize),
    /// A carriage return alone, outside of quotes.
    CarriageReturn,
    /// A quote within a field that does not begin with one: most readers take it as it is.
    Within,
}

impl Misquote {
    pub(crate) fn message(&self) -> String {
        let what = match self.kind {
            MisquoteKind::Open => "the quote that opens here is never closed".into(),
            MisquoteKind::Followed(line) if line == self.line => {
                "a quoted field goes on after its closing quote".into()
            }
            MisquoteKind::Followed(line) => format!(
                "the field that a quote opens here has its closing quote on line {line}, and goes on \
                 after it"
            ),
            MisquoteKind::CarriageReturn => {
                return "a carriage return that ends no line; remove it, or quote the field that has it"
                    .into();
            }
            MisquoteKind::Within => "a quote within a field that does not begin with one".into(),
        };
        format!("{what}; {UNQUOTE}")
    }
}

/// The first quote, or carriage return, in the wrong place. A quote within a field comes last.
pub(crate) fn misquote(bytes: &[u8], delimiter: u8) -> Option<Misquote> {
    enum State {
        Start,
        Plain,
        Quoted,
        Closed,
    }
    let (mut state, mut row, mut line, mut opened) = (State::Start, 1, 1, 1);
    let mut within = None;
    let mut bytes = strip_bom(bytes).iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let ends = byte == delimiter || byte == b'\n' || byte == b'\r';
        if byte == b'\r' && !matches!(state, State::Quoted) && bytes.peek() != Some(&b'\n') {
            return Some(Misquote { row, line, kind: MisquoteKind::CarriageReturn });
        }
        state = match state {
            State::Quoted if byte == b'"' => State::Closed,
            State::Quoted => State::Quoted,
            State::Closed if byte == b'"' => State::Quoted,
            State::Closed if !ends => {
                return Some(Misquote { row, line: opened, kind: MisquoteKind::Followed(line) });
            }
            State::Start if byte == b'"' => {
                opened = line;
                State::Quoted
            }
            _ if ends => State::Start,
            _ => {
                if byte == b'"' {
                    within.get_or_insert(Misquote { row, line, kind: MisquoteKind::Within });
                }
                State::Plain
            }
        };
        if byte == b'\n' {
            line += 1;
            row = if matches!(state, State::Quoted) { row } else { line };
        }
    }
    let open = Misquote { row, line: opened, kind: MisquoteKind::Open };
    if matches!(state, State::Quoted) { Some(open) } else { within }
}

/// What is wrong with a header that lacks a column, and the line: its delimiter may be another, or a
/// quote in it in the wrong place.
pub(crate) fn no_column(
    name: &str,
    columns: &[String],
    delimiter: u8,
    misquote: Option<Misquote>,
) -> (usize, String) {
    let expected = format!("expected a column `{name}`, found");
    let found = shown(&columns.join(", "));
    match (likely_delimiter(columns, delimiter), misquote) {
        (Some(likely), _) => {
            let [likely, given] = [likely, char::from(delimiter)].map(char::escape_default);
            let advice = format!("the delimiter is probably `{likely}`, not `{given}`");
            (1, format!("{expected} one column, `{found}`: {advice}"))
        }
        (None, Some(misquote)) if misquote.row == 1 => (misquote.line, misquote.message()),
        _ if columns.contains(&format!("\"{name}\"")) => {
            (1, format!("{expected} {found}: probably `quoting = true`"))
        }
        _ => (1, format!("{expected} {found}")),
    }
}

/// What is wrong with a header that has a column twice: which of the two is meant, nobody can say.
pub(crate) fn repeated_column(name: &str, columns: &[String]) -> String {
    let count = columns.iter().filter(|&column| column == name).count();
    let found = shown(&columns.join(", "));
    format!("expected one column `{name}`, found {count} of {found}; rename or remove the others")
}

/// The line of the first field that shows that a file which is taken as it stands was written with
/// quotes, if there is one.
///
/// Who writes CSV encloses every field that has a quote and doubles the quotes within it. So a single
/// quote elsewhere says that the quotes are the texts' own, and `"그는 ""글쎄"" 했다"` that they are not.
/// A field that still is an enclosed one when it is unquoted says nothing: NSMC has hundreds of these
/// (`"""글쎄"""`) and no others, and is read as it stands.
pub(crate) fn enclosed<'a>(fields: impl Iterator<Item = (usize, &'a str)>) -> Option<usize> {
    let mut first = None;
    for (line, field) in fields.filter(|(_, field)| field.contains('"')) {
        let text = unquoted(field)?;
        if text.contains('"') && unquoted(&text).is_none() {
            first.get_or_insert(line);
        }
    }
    first
}

/// What an enclosed field stands for; none if it is not enclosed.
fn unquoted(field: &str) -> Option<String> {
    let within = field.strip_prefix('"')?.strip_suffix('"')?;
    let doubled = !within.replace("\"\"", "").contains('"');
    doubled.then(|| within.replace("\"\"", "\""))
}

/// The most frequent delimiter in a header that another one leaves whole.
fn likely_delimiter(columns: &[String], delimiter: u8) -> Option<char> {
    // Of a quote that is not closed, the header is the whole file.
    let [header] = columns else { return None };
    let others = ['\t', ',', ';', '|'].into_iter().filter(|&other| other != char::from(delimiter));
    let (count, likely) = others.map(|other| (header.matches(other).count(), other)).max()?;
    (count > 0 && !header.contains('\n')).then_some(likely)
}

/// A text of the file as a message has it: on one line, without what cannot be seen, and not too long.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    let mut characters = text.chars();
    let mut shown = String::new();
    for character in characters.by_ref().take(LONGEST) {
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// What is wrong with a file that is not UTF-8, and what to do. Of encodings it may be in, those that
/// spreadsheets write in Korea.
pub(crate) fn not_utf8(path: &Path, bytes: &[u8]) -> String {
    let path = path.display();
    if let Some(encoding) = utf16(bytes) {
        return format!(
            "not valid UTF-8; it is {encoding}: `iconv -f {encoding} -t UTF-8 {path} > NEW`"
        );
    }
    let valid = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    // In CP949 the bytes that begin a character of UTF-8 as long as a syllable begin hanja.
    if valid.trim_start_matches(BYTE_ORDER_MARK).chars().any(|character| character.len_utf8() > 2) {
        return format!(
            "not valid UTF-8, though the text before it is: cut short, or of another encoding; \
             correct it, or drop its bytes: `iconv -c -f UTF-8 -t UTF-8 {path} > NEW`"
        );
    }
    format!("not valid UTF-8; it may be CP949 (EUC-KR): `iconv -f CP949 -t UTF-8 {path} > NEW`")
}

/// Which UTF-16 it is, by its mark or by the zero that ASCII in its header has for a byte.
pub(crate) fn utf16(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Some("UTF-16");
    }
    let header = bytes.split(|&byte| byte == b'\n').next()?;
    match header.chunks_exact(2).find(|pair| pair.contains(&0))? {
        [0, 0] => None,
        [0, _] => Some("UTF-16BE"),
        _ => Some("UTF-16LE"),
    }
}

pub(crate) fn strip_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}
