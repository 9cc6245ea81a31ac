use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Result, bail, ensure};
use nsmc_eval::Table;
use nsmc_eval::compare::{Candidate, Comparison, Member, Outcome, group};
use nsmc_eval::statistics::Resampling;
use nsmc_experiment::{RunRecord, RunStatus, sha256_file};

use crate::args::Compare;
use crate::logging;
use crate::output::print;
use crate::run_directory::saved_record;

/// Compares methods on the same test reviews.
pub(crate) fn run(args: &Compare, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    let candidates = args.predictions.iter().map(|argument| read(argument));
    let candidates: Vec<Candidate> = candidates.collect::<Result<_>>()?;
    check(&candidates)?;
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

/// Refuses what cannot be compared: one result in two places, and classes that the runs do not have.
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
