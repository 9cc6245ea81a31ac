//! What a run would refuse of its data when it reads them, as far as it can be seen before the program
//! is built: a grid's runs would otherwise find it one after the other.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Result, ensure};
use nsmc_experiment::{DataConfig, DataFile, ExperimentConfig, Profile, Rows};

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

/// Checks that a trial holds out reviews to be chosen by: nothing else shows that it cannot be before
/// all trials have been trained.
pub(crate) fn validates(profile: &Profile, trial: &ExperimentConfig) -> Result<()> {
    let data = &trial.data;
    let fraction = data.validation_fraction;
    let rows = data.train.class_counts.iter().copied().fold(0, usize::saturating_add);
    let held_out = (rows as f64 * fraction).round();
    let of_file = match data.train.class_counts.as_slice() {
        [] => String::new(),
        _ => format!(" of the {rows} rows of {}", data.train.path.display()),
    };
    ensure!(
        fraction > 0.0 && (data.train.class_counts.is_empty() || held_out > 0.0),
        "`data.validation_fraction`: expected a share that holds out at least one review, found \
         {fraction}, which is none{of_file}: `[trials]` of the profile `{}` choose by validation \
         accuracy; raise it, or leave `[trials]` out of the profile",
        profile.name
    );
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
        if key == "id_column" && column.is_empty() {
            continue;
        }
        let path = file.path.display();
        let count = found.iter().filter(|found| **found == *column).count();
        ensure!(
            count > 0,
            "`data.{key}`: {path}:1: expected a column `{column}`, found {shown} (`data.delimiter` is \
             {:?})",
            data.delimiter
        );
        // Which of them is meant, nobody can say.
        ensure!(
            count == 1,
            "`data.{key}`: {path}:1: expected one column `{column}`, found {count} of {shown}; rename \
             or remove the others"
        );
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::grid::tests::World;

    #[test]
    fn a_column_that_is_needed_must_stand_in_the_header_once() {
        let world = World::new();
        let config = world.plan().jobs[0].run.config.clone();
        let told = |header: &str, change: fn(&mut DataConfig)| {
            world.write("reviews.txt", &format!("{header}\n1\tgood\t1\t0\n"));
            let mut data = config.data.clone();
            change(&mut data);
            let file = DataFile { path: "reviews.txt".into(), ..data.train.clone() };
            let checked = columns(&data, &file, &world.path("reviews.txt"));
            checked.err().map(|error| error.to_string()).unwrap_or_default()
        };
        let as_is = |_: &mut DataConfig| {};
        assert_eq!(told("id\tdocument\tlabel\tnote", as_is), "");
        for (header, key, column) in [
            ("id\tdocument\tlabel\tlabel", "label_column", "label"),
            ("id\tdocument\tlabel\tdocument", "text_column", "document"),
            ("id\tid\tdocument\tlabel", "id_column", "id"),
        ] {
            assert_eq!(
                told(header, as_is),
                format!(
                    "`data.{key}`: reviews.txt:1: expected one column `{column}`, found 2 of {}; rename \
                     or remove the others",
                    header.replace('\t', ", ")
                )
            );
        }
        // What nothing is read of may stand there as often as it likes.
        assert_eq!(told("note\tdocument\tlabel\tnote", |data| data.id_column = String::new()), "");
        let told = told("id\tdocumnet\tlabel\tnote", as_is);
        assert!(told.contains("expected a column `document`, found id, documnet, label"), "{told}");
    }
}
