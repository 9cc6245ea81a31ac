use std::path::Path;

use anyhow::Result;
use nsmc_eval::Table;
use nsmc_eval::compare::{Candidate, Comparison, Member, group};
use nsmc_eval::statistics::Resampling;
use nsmc_experiment::RunRecord;

use crate::args::Compare;
use crate::logging;
use crate::output::print;

/// Compares methods on the same test reviews.
pub(crate) fn run(args: &Compare, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    let candidates = args.predictions.iter().map(|argument| read(argument));
    let groups = group(candidates.collect::<Result<_>>()?);
    let resampling = Resampling { resamples: args.resamples, seed: args.seed };
    let comparison = Comparison::new(&groups, resampling)?;
    let text = |table: &Table| if args.markdown { table.markdown() } else { table.terminal(None) };
    print(format_args!("Accuracy on {} reviews:", comparison.reviews))?;
    print(text(&comparison.accuracy_table()))?;
    print(format_args!(
        "Differences, first less second. The bootstrap ({} resamples) draws reviews anew, and what \
         other seeds may change from Student's t; McNemar's test and the counts are of each method's run of median accuracy:",
        args.resamples
    ))?;
    print(text(&comparison.table()))
}

/// The predictions that an argument stands for.
fn read(argument: &str) -> Result<Candidate> {
    let (name, path) = match argument.split_once('=') {
        Some((name, path)) if !Path::new(argument).exists() => (Some(name.to_owned()), path),
        _ => (None, argument),
    };
    let path = Path::new(path);
    if path.is_dir() {
        let config = RunRecord::read(&path.join("record.json"))?.config;
        let member = Member::read(&path.join("predictions.tsv"), Some(config.seed))?;
        return Ok(Candidate { name, config: Some(config), member });
    }
    Ok(Candidate { name, config: None, member: Member::read(path, None)? })
}
