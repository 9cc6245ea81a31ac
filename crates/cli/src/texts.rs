use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nsmc_data::{DataError, Format, read_columns, read_texts};
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
    /// Lines that are texts are read as they are needed.
    pub(crate) each: Box<dyn Iterator<Item = Result<Text>>>,
}

/// Where texts and ids stand: columns of a table, or keys of JSON objects.
struct Columns {
    text: String,
    id: Option<String>,
    /// The text's is that of the run's data, and nobody named it.
    are_the_runs: bool,
}

impl Columns {
    fn new(args: &Predict, data: &DataConfig) -> Self {
        let id = match (&args.id_column, &args.text_column) {
            (Some(id), _) => Some(id.clone()),
            // A file whose texts have another name need not have the run's ids.
            (None, Some(_)) => None,
            (None, None) => Some(data.id_column.clone()).filter(|column| !column.is_empty()),
        };
        let text = args.text_column.as_ref().unwrap_or(&data.text_column).clone();
        Self { text, id, are_the_runs: args.text_column.is_none() }
    }
}

/// How a file of texts is written.
enum Kind {
    Table { delimiter: u8, quoting: bool },
    JsonLines,
    Lines,
}

impl Kind {
    /// What the options say, else the file's header, else its name.
    fn new(path: &Path, columns: &Columns, args: &Predict, data: &DataConfig) -> Result<Self> {
        let options = [
            ("--delimiter", args.delimiter.is_some()),
            ("--quoting", args.quoting.is_some()),
            ("--text-column", args.text_column.is_some()),
            ("--id-column", args.id_column.is_some()),
        ];
        let given = |options: &[(&'static str, bool)]| {
            options.iter().find(|(_, given)| *given).map(|&(option, _)| option)
        };
        let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
        let delimiter = match extension.as_deref() {
            Some("csv") => Some(b','),
            Some("tsv") => Some(b'\t'),
            Some("jsonl" | "ndjson") => match given(&options[..2]) {
                Some(option) => bail!(
                    "`{option}`: expected an `--input` that is a table, found {}, each line of which \
                     is a JSON object",
                    path.display()
                ),
                None => return Ok(Self::JsonLines),
            },
            Some("json") => bail!(
                "{}: expected a table, JSON Lines or a text per line, found a name that ends in .json; \
                 name a file of one object per line .jsonl, and write a list of objects as one: \
                 `jq -c '.[]' FILE > NEW.jsonl`",
                path.display()
            ),
            _ => None,
        };
        let runs = data.delimiter.as_bytes()[0];
        let delimiter = if is_standard_input(path) {
            None
        } else if args.delimiter.is_some() {
            args.delimiter
        } else if path.is_file() {
            // The run's own files are read as the run reads them, whatever their names end in. One
            // column is delimited by anything.
            let found = read_columns(path, runs, args.quoting.unwrap_or(data.quoting))?;
            let fits = found.len() > 1 && found.contains(&columns.text);
            if fits { Some(runs) } else { delimiter }
        } else {
            // A pipe can be read but once.
            delimiter
        };
        match (delimiter, given(&options)) {
            (Some(delimiter), _) => {
                let usual = if delimiter == runs { data.quoting } else { delimiter != b'\t' };
                Ok(Self::Table { delimiter, quoting: args.quoting.unwrap_or(usual) })
            }
            (None, None) => Ok(Self::Lines),
            (None, Some(option)) => bail!(
                "`{option}`: expected an `--input` whose name ends in .csv, .tsv or .jsonl, or whose \
                 header names the column `{}` (`--delimiter` says what delimits it), found {}, each \
                 line of which is a text",
                columns.text,
                path.display()
            ),
        }
    }
}

impl Texts {
    /// Opens what the command line names; `data` is what the run was trained on.
    pub(crate) fn open(args: &Predict, data: &DataConfig) -> Result<Self> {
        let Some(path) = &args.input else {
            let texts = args.text.clone();
            return Ok(Self::plain(Some(texts.len()), texts.into_iter().map(Ok)));
        };
        let columns = Columns::new(args, data);
        match Kind::new(path, &columns, args, data)? {
            Kind::Table { delimiter, quoting } => table(path, columns, delimiter, quoting),
            Kind::JsonLines => json_lines(path, &columns),
            Kind::Lines => Ok(Self::plain(None, texts_by_line(path, columns, data)?)),
        }
    }

    fn plain(count: Option<usize>, texts: impl Iterator<Item = Result<String>> + 'static) -> Self {
        let texts = texts.map(|text| Ok(Text { id: None, text: text? }));
        Self { have_ids: false, count, each: Box::new(texts) }
    }

    fn read(have_ids: bool, texts: Vec<Text>) -> Self {
        let count = Some(texts.len());
        Self { have_ids, count, each: Box::new(texts.into_iter().map(Ok)) }
    }
}

fn table(path: &Path, columns: Columns, delimiter: u8, quoting: bool) -> Result<Texts> {
    let have_ids = columns.id.is_some();
    let format = Format {
        id_column: columns.id,
        text_column: columns.text,
        label_column: String::new(),
        labels: Vec::new(),
        delimiter,
        quoting,
    };
    let rows = match read_texts(path, &format) {
        Err(error @ DataError::Line { line: 1, .. }) if columns.are_the_runs => bail!(
            "{error}; {COLUMNS}, and `--delimiter` and `--quoting` say how the file is written"
        ),
        rows => rows?.into_iter(),
    };
    let texts = rows.map(|(id, text)| Text { id: have_ids.then_some(id), text });
    Ok(Texts::read(have_ids, texts.collect()))
}

/// Reads all of a file first, as of a table: what is wrong in its last line is no reason to have
/// answered the others.
fn json_lines(path: &Path, columns: &Columns) -> Result<Texts> {
    let name = path.display();
    let mut texts = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut blank = None;
    for (number, line) in (1..).zip(lines(path)?) {
        let line = line?;
        // At the end of a file they are as good as none.
        if line.trim().is_empty() {
            blank.get_or_insert(number);
            continue;
        } else if let Some(blank) = blank {
            bail!("{name}:{blank}: blank line; remove it");
        }
        let text = object(&line, columns).with_context(|| format!("{name}:{number}"))?;
        if let Some(id) = &text.id
            && let Some(first) = seen.insert(id.clone(), number)
        {
            bail!("{name}:{number}: the id {id:?} stands on line {first} already");
        }
        texts.push(text);
    }
    Ok(Texts::read(columns.id.is_some(), texts))
}

/// The lines of a file, each a text, unless the first says that they are none.
fn texts_by_line(
    path: &Path,
    columns: Columns,
    data: &DataConfig,
) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let (name, data) = (name_of(path), data.clone());
    let mut lines = lines(path)?
        .enumerate()
        .map(move |(index, line)| match line {
            Ok(line) if index == 0 => {
                let other = other_than_texts(&line, &columns, &data);
                other.map_or(Ok(line), |other| bail!("{name}:1: expected a text, found {other}"))
            }
            line => line,
        })
        .peekable();
    // Of a file that is told before the model is loaded. Standard input may have nothing to say yet.
    if path.is_file()
        && let Some(Err(error)) = lines.next_if(Result::is_err)
    {
        return Err(error);
    }
    Ok(lines)
}

/// What a first line is that is no text, and what to do: a JSON object with the text's key, or the
/// header of a table.
fn other_than_texts(line: &str, columns: &Columns, data: &DataConfig) -> Option<String> {
    let text = &columns.text;
    if serde_json::from_str::<Map<String, Value>>(line).is_ok_and(|keys| keys.contains_key(text)) {
        return Some(format!(
            "a JSON object with the key `{text}`; give it as a file whose name ends in .jsonl"
        ));
    }
    let runs = data.delimiter.as_bytes()[0];
    let delimiter =
        [runs, b'\t', b',', b';', b'|'].map(char::from).into_iter().find(|&delimiter| {
            let found: Vec<&str> =
                line.split(delimiter).map(|column| column.trim_matches('"')).collect();
            let another = [&data.id_column, &data.label_column].into_iter().chain(&columns.id);
            let mut another = another.filter(|&name| name != text && !name.is_empty());
            // By a delimiter that is not the run's a text may have a column's name for a part.
            let is_header =
                char::from(runs) == delimiter || another.any(|name| found.contains(&name.as_str()));
            found.len() > 1 && found.contains(&text.as_str()) && is_header
        })?;
    Some(format!(
        "the header of a table with the column `{text}`; give it as a file, with `--delimiter '{}'`",
        delimiter.escape_default()
    ))
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
        // Any other was rounded when it was read.
        Some(Value::Number(id)) if id.is_u64() || id.is_i64() => Ok(id.to_string()),
        _ => Err(expected("a string, or a whole number that 64 bits hold", key)),
    });
    Ok(Text { id: id.transpose()?, text })
}

fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn name_of(path: &Path) -> String {
    match is_standard_input(path) {
        true => "standard input".into(),
        false => path.display().to_string(),
    }
}

/// The lines of a file, or of standard input.
fn lines(path: &Path) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let name = name_of(path);
    let reader: Box<dyn Read> = match is_standard_input(path) {
        true => Box::new(std::io::stdin()),
        false => Box::new(fs_err::File::open(path)?),
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    fn data(delimiter: &str, quoting: bool) -> DataConfig {
        let file = serde_json::json!({ "path": "", "sha256": "", "class_counts": [] });
        let data = serde_json::json!({
            "dataset": "toy", "id_column": "id", "text_column": "document", "label_column": "label",
            "labels": ["0", "1"], "label_names": ["bad", "good"], "delimiter": delimiter,
            "quoting": quoting, "train_size": "all", "test_size": "all",
            "validation_fraction": 0.1, "max_length": 24, "train": file, "test": file,
        });
        serde_json::from_value(data).unwrap()
    }

    fn arguments(input: &str, more: &[&str]) -> Predict {
        let arguments = [&["nsmc", "predict", "--run", "run", "--input", input], more].concat();
        match Args::try_parse_from(arguments).unwrap().command {
            Command::Predict(predict) => predict,
            _ => unreachable!("it is `predict`"),
        }
    }

    /// The texts of a file and their ids, for a run on such data.
    fn read(
        name: &str,
        content: &str,
        more: &[&str],
        data: &DataConfig,
    ) -> Result<Vec<(String, String)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs_err::write(&path, content).unwrap();
        let texts = Texts::open(&arguments(path.to_str().unwrap(), more), data)
            .and_then(|texts| texts.each.collect::<Result<Vec<_>>>())
            .map_err(|error| format!("{error:#}"))?;
        Ok(texts.into_iter().map(|text| (text.id.unwrap_or_default(), text.text)).collect())
    }

    #[test]
    fn a_file_whose_header_is_the_runs_is_read_as_the_run_reads_its_own() {
        let (tab, comma, semicolon) = (data("\t", false), data(",", true), data(";", true));
        let plain = "id\tdocument\tlabel\n7\t\"그냥\" 좋다\t1\n";
        let quoted = "id;document;label\n7;\"\"\"그냥\"\" 좋다\";1\n";
        let commas = quoted.replace(';', ",");
        let expected = Ok(vec![("7".to_owned(), "\"그냥\" 좋다".to_owned())]);
        for (name, content, more, data) in [
            ("ratings.txt", plain, &[][..], &tab),
            ("ratings", plain, &[], &tab),
            ("ratings.csv", plain, &[], &tab),
            ("ratings.csv", quoted, &[], &semicolon),
            ("ratings.tsv", quoted, &[], &semicolon),
            ("ratings.txt", quoted, &[], &semicolon),
            ("ratings.txt", &commas, &[], &comma),
            // Another header is read as the name says.
            ("ratings.csv", &commas, &[], &semicolon),
            ("ratings.csv", &commas, &[], &tab),
            ("ratings.tsv", plain, &[], &semicolon),
            // And what an option says is so.
            ("ratings.csv", quoted, &["--delimiter", ";"], &tab),
            ("ratings.txt", quoted, &["--delimiter", ";"], &tab),
            ("ratings.txt", plain, &["--delimiter", "\\t"], &comma),
            ("ratings.tsv", &quoted.replace(';', "\t"), &["--quoting", "true"], &tab),
            ("ratings.txt", &quoted.replace(';', "\t"), &["--quoting", "true"], &tab),
            ("ratings.csv", &plain.replace('\t', ","), &["--quoting", "false"], &comma),
        ] {
            let found = read(name, content, more, data);
            assert_eq!(found, expected, "{name}, {more:?}: {content}");
        }
        // A name that is given is looked for, too; ids are not needed then.
        let theirs = plain.replace("document", "review");
        let named = ["--text-column", "review"];
        assert_eq!(read("ratings.txt", &theirs, &named, &tab).unwrap()[0].0, "");
        let named = [&named[..], &["--id-column", "id"]].concat();
        assert_eq!(read("ratings.txt", &theirs, &named, &tab), expected);
        let keyed = plain.replace("id", "key");
        assert_eq!(read("ratings.txt", &keyed, &["--id-column", "key"], &tab), expected);
        // One column may be quoted as its name says, whatever delimits it.
        let alone =
            read("a.csv", "document\n\"좋다, 정말\"\n", &["--text-column", "document"], &tab);
        assert_eq!(alone.unwrap()[0].1, "좋다, 정말");
    }

    #[test]
    fn of_other_files_each_line_is_a_text_unless_the_first_says_that_it_is_none() {
        let tab = data("\t", false);
        for content in [
            "document\n좋다\n",
            "id\tlabel\n1\t0\n",
            "document, id 그리고 나\n",
            "document,and more\n",
            "[\"좋다\"]\n",
            "{\"text\": \"좋다\"}\n",
            "좋다\n{\"document\": \"좋다\"}\n",
        ] {
            let texts: Vec<String> =
                read("a.txt", content, &[], &tab).unwrap().into_iter().map(|text| text.1).collect();
            assert_eq!(texts, content.lines().collect::<Vec<_>>());
        }
        let json = "{\"document\": \"좋다\"}\n";
        let object = "a.txt:1: expected a text, found a JSON object with the key `document`; give it as \
                      a file whose name ends in .jsonl";
        let header = "a.txt:1: expected a text, found the header of a table with the column `document`; \
                      give it as a file, with `--delimiter ";
        let list = "a.json: expected a table, JSON Lines or a text per line, found a name that ends in \
                    .json; name a file of one object per line .jsonl, and write a list of objects as one: \
                    `jq -c '.[]' FILE > NEW.jsonl`";
        let lines = ", each line of which is a text";
        let objects = ", each line of which is a JSON object";
        for (name, content, more, expected) in [
            ("a.txt", json, &[][..], object.to_owned()),
            ("a.txt", &format!("\u{feff}{json}"), &[], object.into()),
            ("a.txt", "id,document\n1,좋다\n", &[], format!("{header}','`")),
            ("a.txt", "\"document\";\"label\"\n", &[], format!("{header}';'`")),
            ("a.json", "[]", &[], list.into()),
            ("a.txt", "좋다\n", &["--quoting", "true"], lines.into()),
            ("a.txt", "좋다\n", &["--id-column", "id"], lines.into()),
            ("a.txt", "id\tdocument\n", &["--text-column", "review"], lines.into()),
            ("a.jsonl", json, &["--delimiter", ","], objects.into()),
            ("a.ndjson", json, &["--quoting", "true"], objects.into()),
            (
                "a.txt",
                "document\tlabel\n좋다\t1\n",
                &[],
                format!(
                    "a.txt:1: expected a column `id`, found document, label; {COLUMNS}, and `--delimiter` and `--quoting` say how the file is written"
                ),
            ),
        ] {
            let found = read(name, content, more, &tab).unwrap_err();
            assert!(found.ends_with(&expected), "{expected} is not in {found}");
        }
        let piped = Texts::open(&arguments("-", &["--delimiter", ","]), &tab).err().unwrap();
        assert!(
            piped.to_string().contains("`--delimiter`: expected an `--input` whose name ends in")
        );
        // By the run's own delimiter a header is one whatever its other columns are.
        let columns = Columns::new(&arguments("-", &[]), &tab);
        let found = other_than_texts("stars\tdocument", &columns, &tab).unwrap();
        assert!(found.ends_with("`--delimiter '\\t'`"), "{found}");
    }

    #[test]
    fn the_ids_of_json_lines_are_those_of_the_file_and_stand_once() {
        let tab = data("\t", false);
        let line = |id: &str| format!("{{\"document\": \"좋다\", \"id\": {id}}}\n");
        let ids = |ids: &[&str], end: &str| {
            let content = ids.iter().map(|id| line(id)).collect::<String>() + end;
            let texts = read("a.ndjson", &content, &[], &tab)?;
            Ok::<_, String>(texts.into_iter().map(|text| text.0).collect::<Vec<_>>())
        };
        let largest = ["18446744073709551615", "-9223372036854775808", "7", "\"a8\""];
        let expected = ["18446744073709551615", "-9223372036854775808", "7", "a8"];
        for end in ["", "\n", "\r\n  \n\n"] {
            assert_eq!(ids(&largest, end).unwrap(), expected);
        }
        let whole =
            "a.ndjson:2: `id`: expected a string, or a whole number that 64 bits hold, found ";
        for (second, end, expected) in [
            ("18446744073709551616", "", whole),
            ("1.5", "", whole),
            ("1e3", "", whole),
            ("null", "", whole),
            ("7", "", "a.ndjson:2: the id \"7\" stands on line 1 already"),
            ("\"7\"", "", "a.ndjson:2: the id \"7\" stands on line 1 already"),
            ("8", "\n{}\n", "a.ndjson:3: blank line; remove it"),
            ("8", "\n \n{}\n", "a.ndjson:3: blank line; remove it"),
        ] {
            let found = ids(&["7", second], end).unwrap_err();
            assert!(found.contains(expected), "{expected} is not in {found}");
        }
        // Without ids a text may stand there as often as it likes.
        let named = ["--text-column", "document"];
        assert_eq!(read("a.jsonl", &line("1").repeat(2), &named, &tab).unwrap().len(), 2);
    }

    #[test]
    fn a_delimiter_is_one_character() {
        for (given, expected) in [("\\t", Some(b'\t')), ("\t", Some(b'\t')), (";", Some(b';'))] {
            assert_eq!(arguments("a.txt", &["--delimiter", given]).delimiter, expected);
        }
        for given in ["", "::", "、", "\"", "\n"] {
            let arguments =
                ["nsmc", "predict", "--run", "r", "--input", "a.txt", "--delimiter", given];
            let refused = Args::try_parse_from(arguments).err().unwrap().to_string();
            assert!(
                refused.contains("expected one ASCII character, or \\t for a tab"),
                "{refused}"
            );
        }
        for option in ["--text-column", "--id-column", "--delimiter", "--quoting"] {
            let value = if option == "--quoting" { "true" } else { "x" };
            let arguments = ["nsmc", "predict", "--run", "r", "--text", "t", option, value];
            let refused = Args::try_parse_from(arguments).err().unwrap().to_string();
            assert!(refused.contains("cannot be used with"), "{refused}");
        }
    }
}
