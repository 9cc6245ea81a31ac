//! What a run would refuse of its data when it reads them, as far as it can be seen before the program
//! is built: a grid's runs would otherwise find it one after the other.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Result, ensure};
use nsmc_experiment::{DataConfig, DataFile, ExperimentConfig, Rows};

use crate::grid::Shape;
use crate::workspace::Workspace;

/// Bytes of the longest header that is looked at.
const HEADER: u64 = 1 << 16;
/// Characters of it that a message shows.
const SHOWN: usize = 100;

/// Checks sizes against what is documented, without the files.
pub(crate) fn sizes(workspace: &Workspace, config: &ExperimentConfig) -> Result<()> {
    let data = &config.data;
    for (key, size, file) in
        [("train", data.train_size, &data.train), ("test", data.test_size, &data.test)]
    {
        let rows = file.class_counts.iter().copied().fold(0, usize::saturating_add);
        if let Rows::Exactly(size) = size
            && !file.class_counts.is_empty()
        {
            ensure!(
                size <= rows,
                "`data.{key}_size`: expected \"all\" or at most {rows}, the rows of {}, found {size}",
                file.path.display()
            );
        }
    }
    let shape = Shape::of(&workspace.located(config).model);
    if let Some(shape) = shape.filter(|_| !config.method.is_baseline()) {
        let (positions, length) = (shape.positions(), data.max_length);
        ensure!(
            length <= positions,
            "`data.max_length`: expected at most the model's {positions} positions, found {length}"
        );
    }
    Ok(())
}

/// Checks the files, which are there by now: whether they are those that are configured, and have the
/// columns.
pub(crate) fn files(workspace: &Workspace, config: &ExperimentConfig) -> Result<()> {
    let data = &config.data;
    for (key, file) in [("data.train", &data.train), ("data.test", &data.test)] {
        let path = workspace.root.join(&file.path);
        let found = workspace.sha256(&path)?;
        ensure!(
            found == file.sha256,
            "`{key}.sha256`: {}: expected sha256 {}, found {found}: the file is another than the \
             profile, or datasets/manifest.toml, means; if it is the right one, its sha256 belongs there",
            file.path.display(),
            file.sha256
        );
        columns(data, file, &path)?;
    }
    Ok(())
}

/// Checks the columns of a file by its first line. A header with quotes, and a file that is none of
/// lines of text, are left to the run, which can say more of them.
fn columns(data: &DataConfig, file: &DataFile, path: &Path) -> Result<()> {
    let mut line = Vec::new();
    BufReader::new(fs_err::File::open(path)?).take(HEADER).read_until(b'\n', &mut line)?;
    let Ok(line) = String::from_utf8(line) else { return Ok(()) };
    let Some(line) = line.strip_suffix('\n') else { return Ok(()) };
    let line = line.strip_prefix('\u{feff}').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let quoted = data.quoting && line.contains('"');
    if quoted || line.is_empty() || line.contains(['\0', '\r']) {
        return Ok(());
    }
    let found: Vec<&str> = line.split(data.delimiter.as_str()).collect();
    let shown: String = found.join(", ").chars().take(SHOWN).collect();
    for (key, column) in [
        ("id_column", &data.id_column),
        ("text_column", &data.text_column),
        ("label_column", &data.label_column),
    ] {
        let none = key == "id_column" && column.is_empty();
        ensure!(
            none || found.contains(&column.as_str()),
            "`data.{key}`: {}:1: expected a column `{column}`, found {shown} (`data.delimiter` is {:?})",
            file.path.display(),
            data.delimiter
        );
    }
    Ok(())
}
