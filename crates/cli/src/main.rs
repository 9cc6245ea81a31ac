//! `nsmc`: trains, evaluates and uses a classifier. One run is one process of it, started with a
//! fully resolved configuration.
//!
//! Results go to stdout, everything else to stderr.

#![recursion_limit = "256"]

mod allocator;
mod args;
mod baseline;
mod bench;
mod bench_inference;
mod bench_run;
mod check_device;
mod checksums;
mod classifier;
mod compare;
mod corpus;
mod device;
mod evaluate;
mod export;
mod fill_mask;
mod logging;
mod method;
mod model_card;
mod output;
mod predict;
mod pretrain;
mod provenance;
mod run_directory;
mod stars;
mod stop;
mod stretches;
mod texts;
mod train;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Bench, Command};

fn main() -> ExitCode {
    allocator::keep_memory();
    let args = Args::parse();
    let result = match args.command {
        Command::Train(train) => train::run(&train, args.verbose),
        Command::Pretrain(pretrain) => pretrain::run(&pretrain, args.verbose),
        Command::Stars(stars) => stars::run(&stars, args.verbose),
        Command::Evaluate(evaluate) => evaluate::run(&evaluate, args.verbose),
        Command::Predict(predict) => output::unless_unread(predict::run(&predict, args.verbose)),
        Command::FillMask(fill_mask) => fill_mask::run(&fill_mask, args.verbose),
        Command::Export(export) => export::run(&export, args.verbose),
        Command::Verify(verify) => verify::run(&verify, args.verbose),
        Command::Compare(compare) => compare::run(&compare, args.verbose),
        Command::CheckDevice(check) => check_device::run(&check, args.verbose),
        Command::Bench(Bench::Train(bench)) => bench::train(&bench, args.verbose),
        Command::Bench(Bench::Inference(bench)) => bench_inference::run(&bench, args.verbose),
        Command::Bench(Bench::Run(bench)) => bench_run::run(&bench, args.verbose),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Tells a person what went wrong.
fn report(error: &anyhow::Error) {
    tracing::error!("{error:#}");
    // Where stderr is closed or full, the exit code is all that can be said.
    let _ = writeln!(std::io::stderr(), "error: {error:#}");
}
