use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nsmc_data::{DataError, Format, read_texts};
use nsmc_experiment::DataConfig;
use serde_json::{Map, Value};

use crate::args::Predict;

/// Said where the run's columns are not those of the file.
const COLUMNS: &str = "the columns of the run's data are looked for, but `--text-column NAME` names \
                       another, beside which `--id-column NAME` names the ids, if there are any";

/// A text to classify.
pub(crate) struct Text {
    pub(crate) id: Option<String>,
    pub(crate) text: String,
}

/// The texts of a command line, in their order.
pub(crate) struct Texts {
    /// Whether each has an id.
    pub(crate) have_ids: bool,
    /// How many there are, where that is known.
    pub(crate) count: Option<usize>,
    /// Lines of a file are read as they are needed.
    pub(crate) each: Box<dyn Iterator<Item = Result<Text>>>,
}

/// Where texts and ids stand: columns of a table, or keys of JSON objects.
struct Columns {
    text: String,
    id: Option<String>,
    /// They are those of the run's data, and nobody named them.
    are_the_runs: bool,
}

impl Texts {
    /// Opens what the command line names; `data` is what the run was trained on.
    pub(crate) fn open(args: &Predict, data: &DataConfig) -> Result<Self> {
        let Some(path) = &args.input else {
            let texts = args.text.clone();
            return Ok(Self::plain(Some(texts.len()), texts.into_iter().map(Ok)));
        };
        let columns = match &args.text_column {
            Some(text) => {
                Columns { text: text.clone(), id: args.id_column.clone(), are_the_runs: false }
            }
            None => Columns {
                text: data.text_column.clone(),
                id: Some(data.id_column.clone()).filter(|column| !column.is_empty()),
                are_the_runs: true,
            },
        };
        let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("csv") => table(path, columns, b',', data),
            Some("tsv") => table(path, columns, b'\t', data),
            Some("jsonl") => json_lines(path, columns),
            _ => {
                ensure!(
                    columns.are_the_runs,
                    "`--text-column`: expected an `--input` whose name ends in .csv, .tsv or .jsonl, \
                     found {}, each line of which is a text",
                    path.display()
                );
                Ok(Self::plain(None, lines(path)?))
            }
        }
    }

    fn plain(count: Option<usize>, texts: impl Iterator<Item = Result<String>> + 'static) -> Self {
        let texts = texts.map(|text| Ok(Text { id: None, text: text? }));
        Self { have_ids: false, count, each: Box::new(texts) }
    }
}

fn table(path: &Path, columns: Columns, delimiter: u8, data: &DataConfig) -> Result<Texts> {
    // A file that is delimited as the run's data are is taken to be quoted as they are.
    let is_like_data = data.delimiter.as_bytes() == [delimiter];
    let have_ids = columns.id.is_some();
    let format = Format {
        id_column: columns.id,
        text_column: columns.text,
        label_column: String::new(),
        labels: Vec::new(),
        delimiter,
        quoting: if is_like_data { data.quoting } else { delimiter == b',' },
    };
    let rows = match read_texts(path, &format) {
        Err(error @ DataError::Line { line: 1, .. }) if columns.are_the_runs => {
            bail!("{error}; {COLUMNS}")
        }
        rows => rows?,
    };
    let count = Some(rows.len());
    let texts =
        rows.into_iter().map(move |(id, text)| Ok(Text { id: have_ids.then_some(id), text }));
    Ok(Texts { have_ids, count, each: Box::new(texts) })
}

fn json_lines(path: &Path, columns: Columns) -> Result<Texts> {
    let name = path.display().to_string();
    let have_ids = columns.id.is_some();
    let texts = lines(path)?.enumerate().map(move |(index, line)| {
        object(&line?, &columns).with_context(|| format!("{name}:{}", index + 1))
    });
    Ok(Texts { have_ids, count: None, each: Box::new(texts) })
}

/// Text and id of a JSON object.
fn object(line: &str, columns: &Columns) -> Result<Text> {
    let object: Map<String, Value> =
        serde_json::from_str(line).context("expected a JSON object")?;
    let expected = |what: &str, key: &str| {
        let found = match object.get(key) {
            Some(value) => value.to_string(),
            None => format!("the keys {}", object.keys().cloned().collect::<Vec<_>>().join(", ")),
        };
        let advice = if columns.are_the_runs { format!("; {COLUMNS}") } else { String::new() };
        anyhow::anyhow!("`{key}`: expected {what}, found {found}{advice}")
    };
    let text = object.get(&columns.text).and_then(Value::as_str);
    let text = text.ok_or_else(|| expected("a string", &columns.text))?.to_owned();
    let id = columns.id.as_ref().map(|key| match object.get(key) {
        Some(Value::String(id)) => Ok(id.clone()),
        Some(Value::Number(id)) => Ok(id.to_string()),
        _ => Err(expected("a string or a number", key)),
    });
    Ok(Text { id: id.transpose()?, text })
}

/// The lines of a file, or of standard input.
fn lines(path: &Path) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let (reader, name): (Box<dyn Read>, String) = if path.as_os_str() == "-" {
        (Box::new(std::io::stdin()), "standard input".into())
    } else {
        (Box::new(fs_err::File::open(path)?), path.display().to_string())
    };
    let lines = BufReader::new(reader).lines().enumerate();
    Ok(lines.map(move |(index, line)| {
        let line = line.map_err(|error| {
            let remedy = match error.kind() {
                ErrorKind::InvalidData => {
                    ": it may be CP949 (EUC-KR): `iconv -f CP949 -t UTF-8 FILE > NEW`"
                }
                _ => "",
            };
            anyhow::Error::new(error).context(format!("{name}:{}{remedy}", index + 1))
        })?;
        // Windows begins a file in UTF-8 with a byte order mark.
        match line.strip_prefix('\u{feff}') {
            Some(text) if index == 0 => Ok(text.to_owned()),
            _ => Ok(line),
        }
    }))
}
