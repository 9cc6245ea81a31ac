use std::path::Path;

use anyhow::{Context, Result};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Sends events to stderr by `verbosity`, and from `info` up to `file`; burn's `log` records are
/// among them.
pub(crate) fn start(verbosity: u8, file: Option<&Path>) -> Result<()> {
    let level = match verbosity {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Errors are told to a person by `main`, once. Without the hint every `trace!` of every library is
    // formed and sent here before it is dropped: half of the time of tokenization.
    let to_person = fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_filter(level)
        .with_filter(
            filter_fn(move |event| {
                *event.level() <= level
                    && (*event.level() != tracing::Level::ERROR
                        || event.target() != env!("CARGO_CRATE_NAME"))
            })
            .with_max_level_hint(level),
        );
    let to_file = file
        .map(|path| {
            fs_err::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map(|file| file.into_parts().0)
        })
        .transpose()
        .context("the log file")?
        .map(|file| fmt::layer().with_ansi(false).with_writer(file).with_filter(LevelFilter::INFO));
    tracing_subscriber::registry().with(to_person).with(to_file).try_init().context("logging")
}
