use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};
use nsmc_experiment::{MethodKind, Precision};

use crate::bench::METHODS;

/// Where runs lie if `--runs` does not say otherwise.
pub(crate) const RUNS: &str = "runs";

/// Fetch data, compare fine-tuning methods, and make tables and reports of the runs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Fetch data sets and models and verify them. Those that are already there are not fetched again.
    Download(Download),
    /// Train and test one run.
    Train(Train),
    /// Run a whole profile and print its tables.
    Reproduce(Reproduce),
    /// Pre-train a BERT on the reviews that NSMC was drawn from, or go on with a pre-training that stopped.
    Pretrain(Pretrain),
    /// Print the tables of runs.
    Tables(Tables),
    /// Collect a profile's runs into results/PROFILE, with their tables and report.
    Results(Results),
    /// Write a report of runs as one HTML file.
    Report(Report),
    /// Time training steps, and with `--peers` those of the Python libraries.
    Bench(Bench),
    /// Run one task of an array that `reproduce --launcher slurm` submitted.
    #[command(hide = true)]
    SlurmTask(SlurmTask),
    /// Check everything: formatting, lints, docs, each crate alone, end to end.
    Ci,
}

#[derive(clap::Args)]
pub(crate) struct Download {
    /// Data sets and models, by their names in the manifests. Default: every data set.
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(clap::Args, Clone)]
pub(crate) struct Source {
    /// Take data sets from DIR/NAME/ instead of the network. DIR is relative to the current folder.
    #[arg(long, value_name = "DIR", env = "NSMC_MIRROR", value_parser = OsStringValueParser::new())]
    mirror: Option<OsString>,
}

impl Source {
    /// The network.
    pub(crate) const NETWORK: Self = Self { mirror: None };

    /// The folder of the mirror; a variable that is set to nothing names none.
    pub(crate) fn mirror(&self) -> Option<&Path> {
        self.mirror.as_deref().filter(|mirror| !mirror.is_empty()).map(Path::new)
    }
}

#[derive(clap::Args)]
pub(crate) struct Train {
    /// Name of a file in configs/methods/, without its extension.
    #[arg(long)]
    pub(crate) method: String,
    /// Recipe of the profile, if it has more than one.
    #[arg(long)]
    pub(crate) recipe: Option<String>,
    #[command(flatten)]
    pub(crate) options: Options,
    /// Seed of new weights, data order and dropout. Default: the profile's first.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Indices of GPUs of this machine that share each batch, for example `0,1`. Default: the first. The
    /// recipe stays that of one GPU.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub(crate) devices: Vec<u16>,
    /// Run again even if a finished run exists.
    #[arg(long)]
    pub(crate) again: bool,
    /// Show burn's dashboard instead of a progress bar. The key q stops the run; Ctrl-C does not.
    #[arg(long)]
    pub(crate) tui: bool,
}

#[derive(clap::Args)]
pub(crate) struct Reproduce {
    #[command(flatten)]
    pub(crate) options: Options,
    /// Run each cell with the seeds 0 to N-1 instead of the profile's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) seeds: Option<u64>,
    /// Print the plan and stop.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Go on with runs that were stopped or killed. This is what happens without it, too.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Number of runs at once on each of `--devices`. With the local launcher they share the processor's
    /// cores. Default: 1, or as many as Slurm allows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,
    /// Indices of GPUs of this machine that the runs are spread over, for example `0,1`. Default: the
    /// first.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub(crate) devices: Vec<u16>,
    /// What starts the runs.
    #[arg(long, value_enum, default_value = "local")]
    pub(crate) launcher: Launcher,
    /// Option for sbatch, for example `--slurm-option=--partition=gpu`. Repeatable.
    #[arg(long = "slurm-option", value_name = "OPTION", value_parser = sbatch_option)]
    pub(crate) slurm_options: Vec<String>,
}

/// What starts the runs of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Launcher {
    /// This program, on this machine.
    Local,
    /// Slurm: the runs are submitted as job arrays.
    Slurm,
}

/// An option as a line of a batch script.
fn sbatch_option(text: &str) -> Result<String, String> {
    let is_option = text.starts_with('-') && !text.contains(['\n', '\r']);
    if is_option && shlex::split(text).is_some() {
        return Ok(text.to_owned());
    }
    Err("expected an option of sbatch, as --partition=gpu".into())
}

#[derive(clap::Args)]
pub(crate) struct SlurmTask {
    /// The folder with what was submitted.
    pub(crate) folder: PathBuf,
    /// Slurm's number of the array.
    pub(crate) job: u64,
    /// The place of the task in the array.
    pub(crate) task: usize,
}

#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// Name of a file in configs/, without its extension. Default: `paper` if there is a CUDA GPU, else
    /// `mini`.
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// New value of one key of the configuration. Files and folders are relative to the repository.
    /// Repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Folder of the run directories, relative to the repository.
    #[arg(long, value_name = "DIR", default_value = RUNS)]
    pub(crate) runs: PathBuf,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(clap::Args)]
pub(crate) struct Pretrain {
    /// Name of a file in configs/pretraining/, without its extension. Default: `mini` on a GPU, `mini-cpu`
    /// on a CPU.
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Go on where it was stopped or killed. This is what happens without it, too.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Run directory, relative to the repository. Default: runs/pretraining-PROFILE.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) source: Source,
}

/// One of the methods that can be timed.
fn timed() -> impl TypedValueParser<Value = MethodKind> {
    let names = METHODS.map(|(method, _)| method.name());
    PossibleValuesParser::new(names).try_map(|name| name.parse::<MethodKind>())
}

#[derive(clap::Args)]
pub(crate) struct Bench {
    /// Python with torch, transformers, peft and adapters, whose steps are timed beside ours. Its path is
    /// relative to the current folder.
    #[arg(long, value_name = "PYTHON")]
    pub(crate) peers: Option<PathBuf>,
    /// Methods to time. Default: all.
    #[arg(long, value_delimiter = ',', value_parser = timed())]
    pub(crate) methods: Vec<MethodKind>,
    /// How the peers pad a batch: to its longest sequence (`batch`), the same with sequences grouped by
    /// length (`group`), or to 128 tokens (`max`). Default: all.
    #[arg(long, value_delimiter = ',', value_parser = ["batch", "group", "max"])]
    pub(crate) paddings: Vec<String>,
    /// Size of the model.
    #[arg(long, value_enum, default_value = "mbert")]
    pub(crate) shape: Shape,
    /// Number of timed steps.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub(crate) steps: usize,
    /// Number of steps before them that are not timed.
    #[arg(long, default_value_t = 2)]
    pub(crate) warmup: usize,
    /// Precision to which the factors of matrix products are rounded, ours and the peers': float32, or
    /// bf16 on a GPU.
    #[arg(long, default_value = "float32")]
    pub(crate) precision: Precision,
    /// Number of alternating repetitions.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub(crate) rounds: usize,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// JSON file to write every measurement to, relative to the repository.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// A model's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// 12 layers, hidden 768, vocabulary 119,547.
    Mbert,
    /// 4 layers, hidden 256, vocabulary 8,000.
    Mini,
}

/// Which runs are meant.
#[derive(clap::Args)]
pub(crate) struct Which {
    /// Profile whose results are collected in results/PROFILE.
    #[arg(long, conflicts_with_all = ["results", "runs"])]
    pub(crate) profile: Option<String>,
    /// Folder of collected results, relative to the repository.
    #[arg(long, value_name = "DIR", conflicts_with = "runs")]
    pub(crate) results: Option<PathBuf>,
    /// Folder of run directories, relative to the repository. Default: `runs`, if neither `--profile` nor
    /// `--results` is given.
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
}

impl Which {
    /// The folder of the run directories.
    pub(crate) fn runs(&self) -> &Path {
        self.runs.as_deref().unwrap_or(Path::new(RUNS))
    }
}

#[derive(clap::Args)]
pub(crate) struct Tables {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Print Markdown.
    #[arg(long, group = "format")]
    pub(crate) markdown: bool,
    /// Print every figure in long format, as CSV.
    #[arg(long, group = "format")]
    pub(crate) csv: bool,
    /// Print LaTeX.
    #[arg(long, group = "format")]
    pub(crate) latex: bool,
    /// Check that the tables and plots in results/ are those of the runs in it, and write nothing.
    #[arg(long, conflicts_with_all = ["format", "runs"])]
    pub(crate) check: bool,
    /// Write the tables, plots and report in results/ anew from the runs in it.
    #[arg(long, conflicts_with_all = ["check", "format", "runs"])]
    pub(crate) write: bool,
}

#[derive(clap::Args)]
pub(crate) struct Results {
    /// Name of a file in configs/, without its extension.
    #[arg(long)]
    pub(crate) profile: String,
    /// Folder of the run directories, relative to the repository.
    #[arg(long, value_name = "DIR", default_value = RUNS)]
    pub(crate) runs: PathBuf,
    /// Folder to write, relative to the repository. Default: results/PROFILE.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Collect each cell with the seeds 0 to N-1 instead of the profile's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) seeds: Option<u64>,
    /// Value of one key of the configuration that the runs were made with, if it is not the profile's.
    /// Files and folders are relative to the repository. Repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(clap::Args)]
pub(crate) struct Report {
    #[command(flatten)]
    pub(crate) which: Which,
    /// File to write, relative to the repository. Default: report.html in the folder of the results or
    /// runs.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Open it in the browser.
    #[arg(long)]
    pub(crate) open: bool,
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
