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
    /// Fetch data sets and models, verified; what is there already is left alone.
    Download(Download),
    /// Train and test one run.
    Train(Train),
    /// Run a whole profile and print its tables.
    Reproduce(Reproduce),
    /// Pre-train a BERT on the reviews that NSMC was drawn from; goes on where it stopped.
    Pretrain(Pretrain),
    /// Print the tables of runs.
    Tables(Tables),
    /// Collect a profile's runs into results/PROFILE, with their tables and report.
    Results(Results),
    /// Make a report of runs, one HTML file.
    Report(Report),
    /// Time training steps, beside the Python peers if there are any.
    Bench(Bench),
    /// Run one task of an array that `reproduce --launcher slurm` submitted.
    #[command(hide = true)]
    SlurmTask(SlurmTask),
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
    /// Take data sets from DIR/NAME/ instead of the network; DIR is relative to the current folder.
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
    /// GPUs of this machine that share each batch, by their indices: `0,1`. The first if not given.
    /// The recipe stays that of one GPU.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub(crate) devices: Vec<u16>,
    /// Run again what has been run.
    #[arg(long)]
    pub(crate) again: bool,
    /// Show burn's dashboard instead of a progress bar. There the key q stops the run; Ctrl-C is a key
    /// like any other.
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
    /// Go on with the runs that were stopped or killed; they do so without it, too.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Runs at once, on each of `--devices`; here they share the processor's cores. 1 if not given;
    /// under Slurm, what Slurm says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,
    /// GPUs of this machine that the runs are spread over, by their indices: `0,1`. The first if not
    /// given.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub(crate) devices: Vec<u16>,
    /// What starts the runs.
    #[arg(long, value_enum, default_value = "local")]
    pub(crate) launcher: Launcher,
    /// An option for sbatch, for instance `--slurm-option=--partition=gpu`; may be given more than
    /// once.
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
    /// A file in configs/, without its extension; `paper` where there is a CUDA GPU, `mini`
    /// otherwise.
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// Set one key of the configuration; may be given more than once. Files and folders are relative to the
    /// repository.
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
    /// A file in configs/pretraining/, without its extension; if not given, `mini` on a GPU and
    /// `mini-cpu` on a CPU.
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Go on where it was stopped or killed; it does so without it, too.
    #[arg(long)]
    pub(crate) resume: bool,
    /// The run directory, relative to the repository; runs/pretraining-PROFILE if not given.
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
    /// A Python with torch, transformers, peft and adapters, to time beside ours; its path is relative to
    /// the current folder.
    #[arg(long, value_name = "PYTHON")]
    pub(crate) peers: Option<PathBuf>,
    /// Methods; all if not given.
    #[arg(long, value_delimiter = ',', value_parser = timed())]
    pub(crate) methods: Vec<MethodKind>,
    /// How the peers lay out a batch: padded to its longest (`batch`), grouped by length (`group`),
    /// padded to 128 (`max`); all if not given.
    #[arg(long, value_delimiter = ',', value_parser = ["batch", "group", "max"])]
    pub(crate) paddings: Vec<String>,
    /// Size of the model.
    #[arg(long, value_enum, default_value = "mbert")]
    pub(crate) shape: Shape,
    /// Steps timed.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub(crate) steps: usize,
    /// Steps before them.
    #[arg(long, default_value_t = 2)]
    pub(crate) warmup: usize,
    /// In what matrix products round their factors, ours and the peers': float32, or bf16 on a GPU.
    #[arg(long, default_value = "float32")]
    pub(crate) precision: Precision,
    /// Times that each is run, in turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub(crate) rounds: usize,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Write every measurement to a JSON file; its path is relative to the repository.
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
    /// The results of a profile, collected in results/PROFILE.
    #[arg(long, conflicts_with_all = ["results", "runs"])]
    pub(crate) profile: Option<String>,
    /// A folder of collected results, relative to the repository.
    #[arg(long, value_name = "DIR", conflicts_with = "runs")]
    pub(crate) results: Option<PathBuf>,
    /// A folder of run directories, relative to the repository; `runs` if nothing else is given.
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
    /// Check that the tables and plots in results/ are those of the runs in it; write nothing.
    #[arg(long, conflicts_with_all = ["format", "runs"])]
    pub(crate) check: bool,
    /// Make the tables, plots and report in results/ anew, of the runs in it.
    #[arg(long, conflicts_with_all = ["check", "format", "runs"])]
    pub(crate) write: bool,
}

#[derive(clap::Args)]
pub(crate) struct Results {
    /// A file in configs/, without its extension.
    #[arg(long)]
    pub(crate) profile: String,
    /// Folder of the run directories, relative to the repository.
    #[arg(long, value_name = "DIR", default_value = RUNS)]
    pub(crate) runs: PathBuf,
    /// Where to, relative to the repository; results/PROFILE if not given.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Collect each cell with the seeds 0 to N-1 instead of the profile's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) seeds: Option<u64>,
    /// Set one key of the configuration, as the runs were made with; may be given more than once. Files
    /// and folders are relative to the repository.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(clap::Args)]
pub(crate) struct Report {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The file to write, relative to the repository; beside the results, or runs/report.html, if not
    /// given.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Show it in the browser.
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
