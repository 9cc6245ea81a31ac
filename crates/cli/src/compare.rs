use std::path::Path;

use anyhow::Result;
use nsmc_eval::Table;
use nsmc_eval::compare::{Comparison, Group, Member};
use nsmc_eval::statistics::Resampling;
use nsmc_experiment::RunRecord;

use crate::args::Compare;
use crate::logging;
use crate::output::print;

/// Compares methods on the same test reviews.
pub(crate) fn run(args: &Compare, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    let mut groups: Vec<Group> = Vec::new();
    for argument in &args.predictions {
        let (name, member) = read(argument)?;
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.members.push(member),
            None => groups.push(Group { name, members: vec![member] }),
        }
    }
    let resampling = Resampling { resamples: args.resamples, seed: args.seed };
    let comparison = Comparison::new(&groups, resampling)?;
    let text = |table: &Table| if args.markdown { table.markdown() } else { table.terminal(None) };
    print(format_args!("Accuracy on {} reviews:", comparison.reviews))?;
    print(text(&comparison.accuracy_table()))?;
    print(format_args!(
        "Differences, first less second. The bootstrap ({} resamples) draws seeds and reviews; \
         McNemar's test and the counts are of each method's run of median accuracy:",
        args.resamples
    ))?;
    print(text(&comparison.table()))
}

/// The method and its predictions that an argument stands for.
fn read(argument: &str) -> Result<(String, Member)> {
    let (name, path) = match argument.split_once('=') {
        Some((name, path)) if !Path::new(argument).exists() => (Some(name.to_owned()), path),
        _ => (None, argument),
    };
    let path = Path::new(path);
    if path.is_dir() {
        let config = RunRecord::read(&path.join("record.json"))?.config;
        let member = Member::read(&path.join("predictions.tsv"), Some(config.seed))?;
        let own = format!("{}, {}", config.method.label(), config.data.train_size);
        return Ok((name.unwrap_or(own), member));
    }
    let stem = || path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok((name.unwrap_or_else(stem), Member::read(path, None)?))
}
