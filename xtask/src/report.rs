use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nsmc_eval::study::{Study, StudyRun};
use nsmc_experiment::{DataConfig, ExperimentConfig, FileHashes, write_durably};

use crate::args;
use crate::workspace::Workspace;
use crate::{say, tables};

/// A report's name in a folder of results.
pub(crate) const FILE: &str = "report.html";
/// The folder of its plots there.
pub(crate) const PLOTS: &str = "plots";

pub(crate) fn run(workspace: &Workspace, args: &args::Report) -> Result<()> {
    let (study, folder) = tables::read(workspace, &args.which)?;
    let path = args.out.as_ref().map_or_else(|| folder.join(FILE), |out| workspace.folder(out));
    write(workspace, &study, &workspace.folder(args.which.runs()), &path, None)?;
    say(&format!("report: {}", path.display()));
    if args.open {
        open(&path)?;
    }
    Ok(())
}

/// Writes a report, and its plots where a folder is given for them. `runs` may hold the directories of
/// the study's runs.
pub(crate) fn write(
    workspace: &Workspace,
    study: &Study,
    runs: &Path,
    path: &Path,
    plots: Option<&Path>,
) -> Result<()> {
    let report = nsmc_report::Report { study, texts: texts(workspace, study, runs)? };
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    write_durably(path, report.html())?;
    if let Some(folder) = plots {
        if folder.is_dir() {
            fs_err::remove_dir_all(folder)?;
        }
        fs_err::create_dir_all(folder)?;
        for figure in report.plots() {
            fs_err::write(folder.join(format!("{}.svg", figure.name)), figure.svg)?;
        }
    }
    Ok(())
}

/// The texts of the reviews that the report quotes, from the test file if it is here.
fn texts(workspace: &Workspace, study: &Study, runs: &Path) -> Result<BTreeMap<String, String>> {
    let Some((data, wanted)) = nsmc_report::Report::quoted(study) else {
        return Ok(BTreeMap::new());
    };
    let wanted: BTreeSet<String> = wanted.into_iter().collect();
    if data.id_column.is_empty() {
        return Ok(BTreeMap::new());
    }
    let Some(path) = test_file(workspace, study, runs, data)? else {
        say(&format!(
            "{}: the file that was tested is not here; the report has its reviews' ids alone",
            data.dataset
        ));
        return Ok(BTreeMap::new());
    };
    texts_in(&fs_err::read(&path)?, data, &wanted)
}

/// The texts of these reviews in a file, read as a run reads it; what was tested is known to be well
/// formed.
fn texts_in(
    content: &[u8],
    data: &DataConfig,
    wanted: &BTreeSet<String>,
) -> Result<BTreeMap<String, String>> {
    let mut format = csv::ReaderBuilder::new();
    let delimiter = data.delimiter.as_bytes().first().copied().unwrap_or_default();
    format.delimiter(delimiter).quoting(data.quoting).flexible(true);
    if !data.quoting {
        // There a line is a row, and a carriage return in it a character like any other.
        format.terminator(csv::Terminator::Any(b'\n'));
    }
    let mut reader = format.from_reader(content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content));
    let fields = |row: &csv::StringRecord| -> Vec<String> {
        let mut fields: Vec<String> = row.iter().map(str::to_owned).collect();
        // Before the line break it is a part of that.
        if let Some(last) = fields.last_mut().filter(|last| !data.quoting && last.ends_with('\r')) {
            last.pop();
        }
        fields
    };
    let header = fields(reader.headers()?);
    let column = |name: &str| header.iter().position(|found| found == name);
    let (Some(id), Some(text)) = (column(&data.id_column), column(&data.text_column)) else {
        return Ok(BTreeMap::new());
    };
    let mut texts = BTreeMap::new();
    for row in reader.records() {
        let row = fields(&row?);
        if let (Some(id), Some(text)) = (row.get(id), row.get(text))
            && wanted.contains(id)
        {
            texts.insert(id.clone(), text.clone());
        }
    }
    Ok(texts)
}

/// The file that was tested, by its hash: where a run found it, where the profile says that it lies, or
/// where downloads put it. A study's own configurations name no places.
fn test_file(
    workspace: &Workspace,
    study: &Study,
    runs: &Path,
    data: &DataConfig,
) -> Result<Option<PathBuf>> {
    let of_run = |run: &StudyRun| {
        let config = runs.join(&run.record.run_id).join("config.toml");
        Some(ExperimentConfig::read(&config).ok()?.data.test.path)
    };
    let of_profile = || {
        let profile = workspace.profile(&study.name).ok()?;
        let (cell, seed) = (profile.cells.first()?, *profile.seeds.first()?);
        let config =
            workspace.with_catalog(|catalog| Ok(profile.resolve(cell, seed, &[], catalog)?));
        Some(config.ok()?.data.test.path)
    };
    let datasets = workspace.datasets()?;
    let downloaded = datasets
        .datasets
        .get(&data.dataset)
        .map(|entry| Workspace::datasets_folder().join(&data.dataset).join(&entry.test.name));
    let places = study.runs().into_iter().filter_map(of_run);
    let places = places.chain(std::iter::once_with(of_profile).flatten()).chain(downloaded);
    let hashes = FileHashes::default();
    let was_tested =
        |path: &PathBuf| hashes.sha256(path).is_ok_and(|sha256| sha256 == data.test.sha256);
    Ok(places.map(|path| workspace.root.join(path)).find(was_tested))
}

/// Shows a file in the browser.
fn open(path: &Path) -> Result<()> {
    let opener = match std::env::consts::OS {
        "macos" => "open",
        "windows" => "explorer",
        _ => "xdg-open",
    };
    Command::new(opener)
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| {
            format!("`{opener}` cannot be started; open {} yourself", path.display())
        })?;
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use nsmc_experiment::sha256_hex;

    use super::*;
    use crate::fabricated;
    use crate::grid::tests::World;

    #[test]
    fn a_text_is_quoted_to_its_end_whatever_ends_its_line() {
        let mut data = fabricated::config("plain", 1000, 0).data;
        let wanted = ["1", "2"].map(str::to_owned).into();
        let columns = ["id\tlabel\tdocument", "document\tlabel\tid"];
        for (header, rows) in [
            (columns[0], ["1\t0\tone\rof two", "2\t1\t\"two\" \r of three"]),
            (columns[1], ["one\rof two\t0\t1", "\"two\" \r of three\t1\t2"]),
        ] {
            for end in ["\n", "\r\n"] {
                let content = [header, rows[0], rows[1], ""].join(end);
                let texts = texts_in(content.as_bytes(), &data, &wanted).unwrap();
                let found: Vec<(&str, &str)> =
                    texts.iter().map(|(id, text)| (&**id, &**text)).collect();
                let expected = [("1", "one\rof two"), ("2", "\"two\" \r of three")];
                assert_eq!(found, expected, "{content:?}");
            }
        }
        data.quoting = true;
        let content = "id\tlabel\tdocument\r\n1\t0\t\"one\r\nof \"\"two\"\"\"\r\n";
        let texts = texts_in(content.as_bytes(), &data, &wanted).unwrap();
        assert_eq!(texts["1"], "one\r\nof \"two\"");
    }

    /// Own data, which stand in no manifest.
    #[test]
    fn texts_are_quoted_from_the_file_that_was_tested_wherever_it_lies() {
        let world = World::new();
        let lines = (0..fabricated::REVIEWS)
            .map(|review| format!("{},{},\"text, {review}\"\n", 9_000_000 + review, review % 2));
        let tested = format!("\u{feff}id,label,document\n{}", lines.collect::<String>());
        let mut vanilla = fabricated::config("plain", 1000, 0).without_paths();
        vanilla.data.dataset = "mine".into();
        vanilla.data.delimiter = ",".into();
        vanilla.data.quoting = true;
        vanilla.data.test.sha256 = sha256_hex(tested.as_bytes());
        let lora = fabricated::lora(vanilla.clone(), 64, 1.0);
        let runs = world.path("runs");
        for (config, accuracy) in [(&vanilla, 0.86), (&lora, 0.62)] {
            fabricated::run(&runs, config, accuracy, 1.0);
        }
        let mut study = Study::read_runs(&runs, None).unwrap();
        study.name = "mine".into();
        let quoted = |content: &str, place: &str| {
            world.write(place, content);
            let texts = texts(&world.workspace, &study, &runs).unwrap();
            fs_err::remove_file(world.path(place)).unwrap();
            let is_its_text = |(id, text): (&String, &String)| {
                id.parse::<usize>().unwrap()
                    == 9_000_000 + text["text, ".len()..].parse::<usize>().unwrap()
            };
            assert!(texts.iter().all(is_its_text), "{texts:?}");
            !texts.is_empty()
        };
        let (of_run, of_profile, downloaded) =
            ("elsewhere/tested.csv", "own/test.csv", "datasets/mine/test.txt");
        let places = [of_run, of_profile, downloaded];
        assert_eq!(places.map(|place| quoted(&tested, place)), [false; 3], "nothing names them");

        let mut config = lora.clone();
        config.data.test.path = of_run.into();
        world.write(&format!("runs/{}/config.toml", config.run_id()), &config.to_toml());
        let read = |name: &str| fs_err::read_to_string(world.path(name)).unwrap();
        let own = format!("[data.test]\npath = \"{of_profile}\"\n[training]");
        let profile = read("configs/toy.toml").replacen("[training]", &own, 1);
        world.write("configs/mine.toml", &profile);
        let toy = read("datasets/manifest.toml");
        world.write("datasets/manifest.toml", &format!("{toy}{}", toy.replace("[toy", "[mine")));
        assert_eq!(places.map(|place| quoted(&tested, place)), [true; 3]);
        let changed = tested.replace("text, 1", "text, 2");
        assert_eq!(places.map(|place| quoted(&changed, place)), [false; 3]);
    }
}
