//! What goes to stdout: results, and nothing else.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use anyhow::Result;
use nsmc_eval::{EvaluatedRun, Table, paper_table, results_table};
use nsmc_experiment::FusionAttention;

/// Prints a line of results. A reader that has gone away (`| head`) wants no more of them; what else the
/// command does, and its exit code, stay as they are.
pub(crate) fn print(line: impl Display) -> Result<()> {
    unless_unread(writeln!(std::io::stdout(), "{line}").map_err(Into::into))
}

/// No failure where the reader of stdout has gone away.
pub(crate) fn unless_unread(written: Result<()>) -> Result<()> {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    };
    written.or_else(|error| if error.chain().any(closed) { Ok(()) } else { Err(error) })
}

/// The table of runs, and the one beside the paper.
pub(crate) fn print_tables(runs: &[EvaluatedRun]) -> Result<()> {
    print(results_table(runs).for_stdout())?;
    if let Some(table) = paper_table(runs) {
        print("Beside the paper, averaged over batches as it did:")?;
        print(table.for_stdout())?;
    }
    Ok(())
}

/// What each fusion attended to, where there was something to choose.
pub(crate) fn print_attention(attention: &[FusionAttention]) -> Result<()> {
    let Some(first) = attention.first().filter(|first| first.adapters.len() > 1) else {
        return Ok(());
    };
    let header = ["layer", "after"].into_iter().map(str::to_owned);
    let mut table = Table::new(header.chain(first.adapters.iter().cloned()), 2);
    for attention in attention.iter().filter(|other| other.adapters == first.adapters) {
        let place = [attention.layer.to_string(), attention.place.name().to_owned()].into_iter();
        table.push(place.chain(attention.mean.iter().map(|mean| format!("{mean:.3}"))));
    }
    print("What the fusion attends to, mean weights over the test set's tokens:")?;
    print(table.for_stdout())
}
