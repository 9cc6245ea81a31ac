//! Tasks around the runs: `cargo xtask --help`.

mod args;
mod bench;
mod ci;
mod download;
#[cfg(all(test, unix))]
#[path = "../../crates/eval/tests/fabricated/mod.rs"]
mod fabricated;
mod grid;
mod holder;
mod hub;
mod nsmc;
mod offline;
mod preflight;
mod pretrain;
mod report;
mod reproduce;
mod results;
mod slurm;
mod tables;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tidy;
mod train;
mod transfer;
mod workspace;

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

use args::{Args, Command};
use workspace::Workspace;

fn main() -> ExitCode {
    let args = Args::parse();
    let workspace = Workspace::find();
    let result = match args.command {
        Command::Download(download) => download::run(&workspace, &download),
        Command::Train(train) => train::run(&workspace, &train),
        Command::Reproduce(reproduce) => reproduce::run(&workspace, &reproduce),
        Command::Pretrain(pretrain) => pretrain::run(&workspace, &pretrain),
        Command::Tables(tables) => tables::run(&workspace, &tables),
        Command::Results(results) => results::run(&workspace, &results),
        Command::Report(report) => report::run(&workspace, &report),
        Command::Bench(bench) => bench::run(&workspace, &bench),
        Command::SlurmTask(task) => slurm::task(&workspace, &task),
        Command::Ci => ci::run(&workspace),
    };
    match result {
        Ok(()) if UNPRINTED.load(Ordering::Relaxed) => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells a person something: stderr, for results go to stdout. A grid goes on if nobody can be told.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether a result could not be printed, on a full disk for one.
static UNPRINTED: AtomicBool = AtomicBool::new(false);

/// Prints a result; what else the command does goes on where that fails. A reader that closes its end,
/// as `head` does, has what it wanted.
pub(crate) fn print(text: &str) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}")
        && error.kind() != ErrorKind::BrokenPipe
        && !UNPRINTED.swap(true, Ordering::Relaxed)
    {
        say(&format!("error: stdout: {error}"));
    }
}
