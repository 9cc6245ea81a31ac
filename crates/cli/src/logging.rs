use std::fs::File;
use std::io::{IsTerminal, stderr};
use std::path::Path;

use anyhow::{Context, Result};
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// burn-cuda's compiler, which prints every kernel after every pass at `info`: 233 MB in one
/// pre-training.
const COMPILER: &str = "pliron";

/// Sends events to stderr by `verbosity`, and from `info` up to `file`; burn's `log` records are
/// among them.
pub(crate) fn start(verbosity: u8, file: Option<&Path>) -> Result<()> {
    let file = file.map(open).transpose().context("the log file")?;
    let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    let colours = stderr().is_terminal() && !plain;
    subscriber(verbosity, stderr, colours, file).try_init().context("logging")
}

fn open(path: &Path) -> std::io::Result<File> {
    let file = fs_err::OpenOptions::new().create(true).append(true).open(path)?;
    Ok(file.into_parts().0)
}

/// Sends events to `person` by `verbosity`, and from `info` up to `file`.
fn subscriber(
    verbosity: u8,
    person: impl for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
    colours: bool,
    file: Option<File>,
) -> impl Subscriber + Send + Sync {
    let level = match verbosity {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let compiler_level = if level == LevelFilter::TRACE { level } else { LevelFilter::WARN };
    // Errors are told to a person by `main`, once. Without the hint every `trace!` of every library is
    // formed and sent here before it is dropped: half of the time of tokenization.
    let layer = fmt::layer().with_writer(person).with_ansi(colours).with_target(false);
    let to_person = layer.with_filter(
        filter_fn(move |event| {
            let compiler = event.target().starts_with(COMPILER);
            *event.level() <= if compiler { compiler_level } else { level }
                && (*event.level() != tracing::Level::ERROR
                    || event.target() != env!("CARGO_CRATE_NAME"))
        })
        .with_max_level_hint(level),
    );
    let from_info = || {
        let targets = Targets::new().with_default(LevelFilter::INFO);
        targets.with_target(COMPILER, LevelFilter::WARN)
    };
    let to_file =
        file.map(|file| fmt::layer().with_ansi(false).with_writer(file).with_filter(from_info()));
    tracing_subscriber::registry().with(to_person).with(to_file)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// An event of each level from a library, and the error that `main` tells.
    fn speak() {
        tracing::error!(target: "library", "a library's error");
        tracing::error!(target: env!("CARGO_CRATE_NAME"), "the program's error");
        tracing::warn!(target: "library", "a warning");
        tracing::info!(target: "library", "an information");
        tracing::info!(target: "pliron::pass", "a kernel");
        tracing::debug!(target: "library", "a detail");
        tracing::trace!(target: "library", "a trace");
    }

    #[test]
    fn what_is_logged_does_not_depend_on_what_a_person_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let told = ["a library's error", "a warning", "an information", "a detail", "a trace"];
        let all =
            ["a library's error", "a warning", "an information", "a kernel", "a detail", "a trace"];
        for verbosity in 0..=3 {
            let (log, person) = (folder.path().join("log.txt"), folder.path().join("person.txt"));
            fs_err::write(&log, "before\n").unwrap();
            let stderr = Arc::new(fs_err::File::create(&person).unwrap().into_parts().0);
            let subscriber = subscriber(verbosity, stderr, false, Some(open(&log).unwrap()));
            tracing::subscriber::with_default(subscriber, speak);

            let log = fs_err::read_to_string(log).unwrap();
            let levels: Vec<&str> =
                log.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap()).collect();
            assert_eq!(levels, ["ERROR", "ERROR", "WARN", "INFO"], "{log}");
            assert!(
                log.starts_with("before\n") && log.contains("library: an information"),
                "{log}"
            );

            let person = fs_err::read_to_string(person).unwrap();
            let told = if verbosity == 3 { &all[..] } else { &told[..2 + usize::from(verbosity)] };
            assert_eq!(person.lines().count(), told.len(), "verbosity {verbosity}: {person}");
            for (line, event) in person.lines().zip(told) {
                assert!(line.contains(event), "verbosity {verbosity}: {person}");
            }
        }
    }
}
