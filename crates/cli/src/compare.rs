use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail, ensure};
use nsmc_eval::Table;
use nsmc_eval::compare::{Candidate, Comparison, Member, Outcome, group};
use nsmc_eval::statistics::Resampling;
use nsmc_experiment::{ExperimentConfig, RunRecord, RunStatus, sha256_file};

use crate::args::Compare;
use crate::logging;
use crate::output::print;
use crate::run_directory::saved_record;

/// Compares methods on the same test reviews.
pub(crate) fn run(args: &Compare, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    let candidates = args.predictions.iter().map(|argument| read(argument));
    let mut candidates: Vec<Candidate> = candidates.collect::<Result<_>>()?;
    check(&candidates)?;
    name_files(&mut candidates);
    let groups = group(candidates);
    let resampling = Resampling { resamples: args.resamples, seed: args.seed };
    let comparison = Comparison::new(&groups, resampling)?;
    let text = |table: &Table| if args.markdown { table.markdown() } else { table.for_stdout() };
    // Without empty lines between them, Markdown takes tables and sentences for one table.
    let gap = if args.markdown { "\n" } else { "" };
    print(format_args!("Accuracy on {} reviews:{gap}", comparison.reviews))?;
    print(text(&comparison.accuracy_table()))?;
    print(format_args!(
        "{gap}Differences, first less second. The bootstrap ({} resamples) draws reviews anew, and what \
         other seeds may change from Student's t; McNemar's test and the counts are of each method's run \
         of median accuracy:{gap}",
        args.resamples
    ))?;
    print(text(&comparison.table()))
}

/// Refuses what cannot be compared: one result in two places, runs that were tested on different files,
/// and classes that the runs do not have.
fn check(candidates: &[Candidate]) -> Result<()> {
    let (mut paths, mut baselines) = (HashSet::new(), HashMap::new());
    for Candidate { config, member, .. } in candidates {
        // A pipe's name leads to no file, and each is another one.
        if let Ok(path) = fs_err::canonicalize(&member.name)
            && !paths.insert(path)
        {
            bail!("{}: given twice", member.name);
        }
        let baseline = config.as_ref().filter(|config| config.method.is_baseline());
        if let Some(other) = baseline.and_then(|it| baselines.insert(it.identity(), &member.name)) {
            bail!(
                "{other} and {} are one result: a baseline has no seed; leave one out",
                member.name
            );
        }
    }
    let mut of_runs = candidates.iter().filter_map(|it| Some((&it.member, it.config.as_ref()?)));
    let Some((run, config)) = of_runs.next() else { return Ok(()) };
    // Reviews are matched by their ids, and ids that are row numbers, with labels that alternate, fit any
    // file. One that was saved anew, or cleaned, holds the same reviews, but nothing here says so; the
    // prediction files alone are then compared as any made elsewhere.
    let test = &config.data.test.sha256;
    if let Some(other) = of_runs.find(|(_, other)| other.data.test.sha256 != *test) {
        let [first, second] = [(run, config), other].map(test_file);
        bail!(
            "{first} and {second}: the runs were tested on different files, in which one id may be of \
             two texts; compare runs of one test file, or, if both hold the same reviews, say so by \
             giving the files of the predictions: NAME={} NAME={}",
            run.name,
            other.0.name
        );
    }
    let labels = &config.data.labels;
    for Candidate { member, .. } in candidates {
        let unknown = |outcome: &&Outcome| outcome.class.max(outcome.label) >= labels.len();
        if let Some(Outcome { id, label, class }) = member.outcomes.iter().find(unknown) {
            bail!(
                "{}: review {id}: label {label}, prediction {class}: the classes of {} are numbers from \
                 0, in the order {}",
                member.name,
                run.name,
                labels.join(", ")
            );
        }
    }
    Ok(())
}

/// What a run was tested on, in words. A record does not know where it lies; the configuration beside it
/// does.
fn test_file((run, config): (&Member, &ExperimentConfig)) -> String {
    let beside = Path::new(&run.name).with_file_name("config.toml");
    let place = ExperimentConfig::read(&beside)
        .ok()
        .filter(|there| there.identity() == config.identity())
        .map(|there| format!("{}, ", there.data.test.path.display()));
    format!(
        "{} (`data.test`: {}sha256 {})",
        run.name,
        place.unwrap_or_default(),
        config.data.test.sha256
    )
}

/// Names the files that were given no name: by their stems, and where another method is called so, by as
/// much of their paths as tells them apart.
fn name_files(candidates: &mut [Candidate]) {
    let is_file = |candidate: &Candidate| candidate.name.is_none() && candidate.config.is_none();
    // How many parts of its path name each; with none it is the stem.
    let mut parts = vec![0; candidates.len()];
    loop {
        let names: Vec<Option<String>> = candidates
            .iter()
            .zip(&parts)
            .map(|(candidate, &parts)| match &candidate.name {
                None if is_file(candidate) => Some(end_of(&candidate.member.name, parts)),
                name => name.clone(),
            })
            .collect();
        let shared = |at: usize| names.iter().filter(|name| **name == names[at]).count() > 1;
        let mut longer = false;
        for (at, candidate) in candidates.iter().enumerate() {
            let all = Path::new(&candidate.member.name).components().count();
            if is_file(candidate) && shared(at) && parts[at] < all {
                parts[at] += 1;
                longer = true;
            }
        }
        if !longer {
            for (candidate, name) in candidates.iter_mut().zip(names) {
                candidate.name = name;
            }
            return;
        }
    }
}

/// The last parts of a path; of none, the stem.
fn end_of(path: &str, parts: usize) -> String {
    let path = Path::new(path);
    if parts == 0 {
        let stem = path.file_stem().unwrap_or(path.as_os_str());
        return stem.to_string_lossy().into_owned();
    }
    let all: Vec<Component<'_>> = path.components().collect();
    let end: PathBuf = all[all.len().saturating_sub(parts)..].iter().collect();
    end.to_string_lossy().into_owned()
}

/// The predictions that an argument stands for.
fn read(argument: &str) -> Result<Candidate> {
    let (name, path) = match argument.split_once('=') {
        Some((name, path)) if !Path::new(argument).exists() => (Some(name.to_owned()), path),
        _ => (None, argument),
    };
    let path = Path::new(path);
    if path.is_dir() {
        let RunRecord { config, status, results, .. } = saved_record(path)?;
        if let RunStatus::Failed { error } = status {
            bail!("{}: the run has no predictions: {error}", path.display());
        }
        let predictions = path.join("predictions.tsv");
        let member = Member::read(&predictions, Some(config.seed))?;
        let expected = results.map(|results| results.predictions_sha256);
        ensure!(
            Some(sha256_file(&predictions)?) == expected,
            "{}: not the predictions that the run's record.json is of; `nsmc verify` says what changed",
            predictions.display()
        );
        return Ok(Candidate { name, config: Some(config), member });
    }
    Ok(Candidate { name, config: None, member: Member::read(path, None)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_stem_are_told_apart_by_their_paths() {
        let names = |given: &[(Option<&str>, &str)]| -> Vec<String> {
            let candidate = |(name, path): &(Option<&str>, &str)| Candidate {
                name: name.map(str::to_owned),
                config: None,
                member: Member { name: (*path).into(), seed: None, outcomes: Vec::new() },
            };
            let mut candidates: Vec<Candidate> = given.iter().map(candidate).collect();
            name_files(&mut candidates);
            candidates.into_iter().map(|candidate| candidate.name.unwrap()).collect()
        };
        let files =
            |paths: &[&str]| names(&paths.iter().map(|path| (None, *path)).collect::<Vec<_>>());
        assert_eq!(files(&["a/pred.csv", "b/other.csv"]), ["pred", "other"]);
        assert_eq!(
            files(&["a/pred.csv", "b/pred.csv", "c/other.csv"]),
            ["a/pred.csv", "b/pred.csv", "other"]
        );
        assert_eq!(files(&["a/pred.csv", "a/pred.tsv"]), ["pred.csv", "pred.tsv"]);
        assert_eq!(
            files(&["x/a/pred.csv", "/y/a/pred.csv", "pred.csv"]),
            ["x/a/pred.csv", "y/a/pred.csv", "pred.csv"]
        );
        // A given name stays, and is one method's although several bear it.
        assert_eq!(
            names(&[(Some("pred"), "a/x.csv"), (Some("pred"), "a/y.csv"), (None, "b/pred.csv")]),
            ["pred", "pred", "pred.csv"]
        );
        // No more can be said of a pipe that is given twice.
        assert_eq!(files(&["/dev/stdin", "/dev/stdin"]), ["/dev/stdin", "/dev/stdin"]);
    }
}
