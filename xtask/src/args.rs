use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Tasks around the runs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Fetch data sets and models, verified; what is there already is left alone.
    Download(Download),
    /// Train and test one run.
    Train(Train),
    /// Run a whole profile and print its tables.
    Reproduce(Reproduce),
    /// Pre-train a BERT on the reviews that NSMC was drawn from; goes on where it stopped.
    Pretrain(Pretrain),
    /// Print the tables of finished runs.
    Tables(Tables),
    /// Check everything: formatting, lints, docs, each crate alone, end to end.
    Ci,
}

#[derive(clap::Args)]
pub(crate) struct Download {
    /// Data sets and models by their names in the manifests; without any, every data set.
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(clap::Args, Clone)]
pub(crate) struct Source {
    /// Take data sets from DIR/NAME/ instead of the network.
    #[arg(long, value_name = "DIR", env = "NSMC_MIRROR")]
    pub(crate) mirror: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct Train {
    /// A file in configs/methods/, without its extension.
    #[arg(long)]
    pub(crate) method: String,
    /// A recipe of the profile, where it has more than one.
    #[arg(long)]
    pub(crate) recipe: Option<String>,
    #[command(flatten)]
    pub(crate) options: Options,
    /// Decides new weights, data order and dropout; the profile's first seed if not given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Run again what has been run.
    #[arg(long)]
    pub(crate) again: bool,
    /// Show burn's dashboard instead of a progress bar.
    #[arg(long)]
    pub(crate) tui: bool,
}

#[derive(clap::Args)]
pub(crate) struct Reproduce {
    #[command(flatten)]
    pub(crate) options: Options,
    /// Run each cell with the seeds 0 to N-1 instead of the profile's.
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<u64>,
    /// Print the plan and stop.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Runs at once; they share the processor's cores.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: u16,
}

#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// A file in configs/, without its extension; `paper` where there is a CUDA GPU, `mini`
    /// otherwise.
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// Set one key of the configuration; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Folder of the run directories.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) runs: PathBuf,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(clap::Args)]
pub(crate) struct Pretrain {
    /// A file in configs/pretraining/, without its extension.
    #[arg(long, default_value = "mini")]
    pub(crate) profile: String,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// The run directory; runs/pretraining-PROFILE if not given.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(clap::Args)]
pub(crate) struct Tables {
    /// Folder of the run directories.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Print Markdown.
    #[arg(long)]
    pub(crate) markdown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceChoice {
    /// A CUDA GPU if there is one, the CPU otherwise.
    Auto,
    /// The CPU.
    Cpu,
    /// The first CUDA GPU.
    Cuda,
}
