use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{OsStringValueParser, PossibleValue, TypedValueParser};
use clap::{ArgAction, ArgGroup, Parser, Subcommand, ValueEnum};
use nsmc_experiment::{MethodKind, Precision, is_sha256};

use crate::corpus::cache_folder;

/// sha256 of the documented corpus, as in datasets/manifest.toml.
const NSMC_CORPUS: &str = "d8efd51fb27659cb95fd529ca9c8664b8e07a8ef313a551a2a0c256e88f3a380";

/// Fine-tune BERT classifiers (fully, with adapters, AdapterFusion or LoRA), and test, compare, use and
/// export them.
#[derive(Parser)]
#[command(name = "nsmc", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Log more to stderr: -v for progress, -vv for details, -vvv for everything.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Train and test one run.
    Train(Train),
    /// Pre-train a BERT by masked language modelling, or go on with a pre-training that stopped.
    Pretrain(Pretrain),
    /// Make a data set of the star ratings in the crawl that NSMC was drawn from.
    Stars(Stars),
    /// Test a run's model again and print its metrics.
    Evaluate(Evaluate),
    /// Classify texts with a run's model.
    Predict(Predict),
    /// Predict the token in the place of each `[MASK]` with a masked language model.
    FillMask(FillMask),
    /// Write a run's model in the layout of a Python library.
    Export(Export),
    /// Check that finished runs are unchanged: metrics, hashes, provenance.
    Verify(Verify),
    /// Compare methods on the same test reviews: intervals, tests, disagreements.
    Compare(Compare),
    /// Check that a device computes what the CPU does: every method's logits and gradients.
    CheckDevice(CheckDevice),
    /// Measure speed.
    #[command(subcommand)]
    Bench(Bench),
}

fn sha256(text: &str) -> Result<String, String> {
    is_sha256(text).then(|| text.into()).ok_or_else(|| "expected 64 lowercase hex digits".into())
}

#[derive(clap::Args)]
pub(crate) struct Stars {
    /// The archive of NSMC's repository.
    #[arg(long, value_name = "FILE")]
    pub(crate) archive: PathBuf,
    /// NSMC's training file; its validation split is left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) train: PathBuf,
    /// NSMC's test file; its reviews are left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) test: PathBuf,
    /// Expected sha256 of the corpus that is built from them.
    #[arg(long, value_name = "HEX", default_value = NSMC_CORPUS, value_parser = sha256)]
    pub(crate) corpus_sha256: String,
    /// Share of NSMC's training file that runs validate on.
    #[arg(long, default_value_t = 0.1)]
    pub(crate) validation_fraction: f64,
    /// Share of the starred reviews that is held out to test on.
    #[arg(long, default_value_t = 0.01)]
    pub(crate) test_fraction: f64,
    /// Folder to write the training file and the test file to.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) cache: Cache,
}

/// Where files lie by now.
#[derive(clap::Args)]
pub(crate) struct Moved {
    /// New place of a file or folder that the run read and that has moved since: data.train.path,
    /// data.test.path, model.path or method.sources.NAME.path. Its hash must be unchanged. Repeatable.
    #[arg(long, value_name = "KEY=PATH")]
    pub(crate) set: Vec<String>,
}

/// Where to keep what another run can use.
#[derive(clap::Args)]
pub(crate) struct Cache {
    /// Folder to keep tokens and corpora in, instead of the user's cache folder.
    // Empty, as a container's settings leave a variable, it is as if it were not there.
    #[arg(
        long,
        value_name = "DIR",
        env = "NSMC_CACHE",
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    cache: Option<PathBuf>,
}

impl Cache {
    /// The folder chosen, or the user's.
    pub(crate) fn folder(&self) -> PathBuf {
        let chosen = self.cache.as_ref().filter(|folder| !folder.as_os_str().is_empty());
        chosen.cloned().unwrap_or_else(cache_folder)
    }
}

#[derive(clap::Args)]
pub(crate) struct Verify {
    /// Run directories.
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) moved: Moved,
    /// Print one JSON object instead of lines of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args)]
pub(crate) struct Compare {
    /// Run directories and prediction files (TSV or CSV with id, label and prediction). NAME=PATH gives
    /// one a name; those of the same name are seeds of one method.
    #[arg(required = true, num_args = 2.., value_name = "[NAME=]PATH")]
    pub(crate) predictions: Vec<String>,
    /// Bootstrap resamples (at least 1,000).
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1000..).map(|n| n as usize))]
    pub(crate) resamples: usize,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print the tables as Markdown.
    #[arg(long)]
    pub(crate) markdown: bool,
}

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Time training steps on batches of given lengths, and print one line of JSON.
    Train(BenchTrain),
    /// Time training steps of a finished run, as it was trained, and print one line of JSON.
    Run(BenchRun),
    /// Time encoding a finished run's reviews and predicting its test reviews, and print one line of JSON.
    Inference(BenchInference),
}

#[derive(clap::Args)]
pub(crate) struct CheckDevice {
    /// Device to check: cuda, or cuda:N for the GPU with the index N.
    #[arg(long, default_value = "cuda")]
    pub(crate) device: DeviceChoice,
    /// Size of the model.
    #[arg(long, value_enum, default_value = "mini")]
    pub(crate) shape: ModelShape,
    /// File with one batch per line: the token counts of its sequences.
    #[arg(long, value_name = "FILE")]
    pub(crate) lengths: PathBuf,
    /// Precision to which the factors of the device's matrix products are rounded: float32, or bf16 on
    /// a GPU.
    #[arg(long, default_value = "float32")]
    pub(crate) precision: Precision,
    /// Number of training steps whose losses are compared.
    #[arg(long, default_value_t = 10)]
    pub(crate) steps: usize,
}

#[derive(clap::Args)]
pub(crate) struct Train {
    /// Resolved configuration, as `cargo xtask train` writes it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Run directory: a new one, or that of the same run, which then goes on where it stopped.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Where to compute: auto, cpu, cuda, or cuda:N for the GPU with the index N.
    #[arg(long, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// GPUs that share each batch, for example cuda:0,cuda:1. Validation and test run on the first.
    #[arg(long, value_delimiter = ',', value_name = "GPU", conflicts_with = "device")]
    pub(crate) devices: Vec<DeviceChoice>,
    /// Show burn's dashboard instead of a progress bar, on a terminal. The key q stops the run; Ctrl-C
    /// does not.
    #[arg(long)]
    pub(crate) tui: bool,
    /// Report progress on stderr as JSON Lines, for another program to read.
    #[arg(long, conflicts_with = "tui")]
    pub(crate) progress_json: bool,
    /// Stop, as on SIGTERM, when standard input ends: when the program at its other end has ended.
    #[arg(long, conflicts_with = "tui")]
    pub(crate) stop_with_stdin: bool,
    #[command(flatten)]
    pub(crate) cache: Cache,
}

#[derive(clap::Args)]
pub(crate) struct Pretrain {
    /// Resolved configuration, as `cargo xtask pretrain` writes it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Run directory: a new one, or one of the same configuration, which then goes on where it stopped.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Where to compute: auto, cpu, cuda, or cuda:N for the GPU with the index N.
    #[arg(long, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Stop, as on SIGTERM, when standard input ends: when the program at its other end has ended.
    #[arg(long)]
    pub(crate) stop_with_stdin: bool,
    #[command(flatten)]
    pub(crate) cache: Cache,
}

#[derive(clap::Args)]
pub(crate) struct Evaluate {
    /// Run directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) moved: Moved,
    /// Where to compute: auto, cpu, cuda, or cuda:N for the GPU with the index N.
    #[arg(long, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    #[command(flatten)]
    pub(crate) cache: Cache,
}

#[derive(clap::Args)]
#[command(group = ArgGroup::new("texts").required(true).args(["text", "input"]))]
pub(crate) struct Predict {
    /// Run directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) moved: Moved,
    /// Text to classify. Repeatable.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) text: Vec<String>,
    /// File of texts: a table with a header (.csv, .tsv, or any file whose header has the text's column
    /// when split by the run's own delimiter), JSON objects (.jsonl, .ndjson), or any other file with one
    /// text per line. - is standard input, with one text per line.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Column of the text in a table, or its key in a JSON object. Default: that of the run's data.
    // A conflict, for what is "required" of an option beside another of its group is waived.
    #[arg(long, value_name = "NAME", conflicts_with = "text")]
    pub(crate) text_column: Option<String>,
    /// Column or key of the id, which is put beside each answer. Default: that of the run's data, or none
    /// if --text-column is given.
    #[arg(long, value_name = "NAME", conflicts_with = "text")]
    pub(crate) id_column: Option<String>,
    /// Delimiter of a table's fields: one character, or \t. Default: that of the run's data if the header,
    /// split by it, has the text's column, else a comma in .csv and a tab in .tsv.
    #[arg(long, value_name = "CHARACTER", conflicts_with = "text", value_parser = delimiter)]
    pub(crate) delimiter: Option<u8>,
    /// Whether `"` quotes a table's fields. Default: as in the run's data if the delimiter is the same,
    /// else true unless the delimiter is a tab.
    #[arg(long, conflicts_with = "text")]
    pub(crate) quoting: Option<bool>,
    /// Output format.
    #[arg(long, value_enum, default_value = "jsonl")]
    pub(crate) output: Form,
    /// Where to compute: auto, cpu, cuda, or cuda:N for the GPU with the index N.
    #[arg(long, default_value = "auto")]
    pub(crate) device: DeviceChoice,
}

/// A delimiter as a configuration has it, whose tab a shell does not know.
fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        &[delimiter] if !matches!(delimiter, b'"' | b'\n' | b'\r') => Ok(delimiter),
        _ => Err("expected one ASCII character, or \\t for a tab".into()),
    }
}

#[derive(clap::Args)]
pub(crate) struct FillMask {
    /// Masked language model in Hugging Face layout.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Language adapter in AdapterHub's layout.
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    /// Text with `[MASK]` in it. Repeatable.
    #[arg(long, required = true, allow_hyphen_values = true)]
    pub(crate) text: Vec<String>,
    /// Number of predictions per mask.
    #[arg(long, default_value_t = 5)]
    pub(crate) top: usize,
    /// Also print the token ids and the logits of every token.
    #[arg(long)]
    pub(crate) logits: bool,
}

#[derive(clap::Args)]
pub(crate) struct Export {
    /// Run directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) moved: Moved,
    /// Layout to write. Default: hf for a run of vanilla or head, peft for LoRA, adapterhub for adapters
    /// and AdapterFusion.
    #[arg(long, value_enum)]
    pub(crate) format: Option<Layout>,
    /// Folder to create.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// The layouts that a model can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// transformers: the whole model of a run of vanilla or head.
    Hf,
    /// transformers: the whole model, with LoRA merged into its weights.
    Merged,
    /// PEFT: LoRA and the classifier.
    Peft,
    /// loralib's state dict: LoRA and the classifier.
    Loralib,
    /// AdapterHub: adapters, head, fusion layers and their setup.
    Adapterhub,
}

#[derive(clap::Args)]
pub(crate) struct BenchTrain {
    /// Method to time.
    #[arg(long, value_enum, default_value = "vanilla")]
    pub(crate) method: Trained,
    /// Size of the model.
    #[arg(long, value_enum, default_value = "mbert")]
    pub(crate) shape: ModelShape,
    /// File with one batch per line: the token counts of its sequences.
    #[arg(long, value_name = "FILE")]
    pub(crate) lengths: PathBuf,
    /// Number of timed steps.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub(crate) steps: usize,
    /// Number of steps before them that are not timed.
    #[arg(long, default_value_t = 2)]
    pub(crate) warmup: usize,
    /// LoRA's rank.
    #[arg(long, default_value_t = 16)]
    pub(crate) rank: usize,
    /// Layout of a batch.
    #[arg(long, value_enum, default_value = "device")]
    pub(crate) layout: InputLayout,
    /// Precision to which the factors of matrix products are rounded: float32, or bf16 on a GPU.
    #[arg(long, default_value = "float32")]
    pub(crate) precision: Precision,
    /// Where to compute: auto, cpu, cuda, or cuda:N for the GPU with the index N.
    #[arg(long, default_value = "auto")]
    pub(crate) device: DeviceChoice,
}

#[derive(clap::Args)]
pub(crate) struct BenchRun {
    /// Run directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) moved: Moved,
    /// Number of timed steps.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub(crate) steps: usize,
    /// Number of steps before them that are not timed.
    #[arg(long, default_value_t = 5)]
    pub(crate) warmup: usize,
    /// Write the time to the run's record. Without this, nothing in the run directory changes.
    #[arg(long)]
    pub(crate) record: bool,
    /// Where to compute: auto, cpu, cuda, or cuda:N for the GPU with the index N.
    #[arg(long, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Stop, as on SIGTERM, when standard input ends: when the program at its other end has ended.
    #[arg(long)]
    pub(crate) stop_with_stdin: bool,
    #[command(flatten)]
    pub(crate) cache: Cache,
}

#[derive(clap::Args)]
pub(crate) struct BenchInference {
    /// Run directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) moved: Moved,
    /// Reviews per batch.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub(crate) batch_size: usize,
    /// Number of repetitions.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub(crate) rounds: usize,
    /// Where to compute: auto, cpu, cuda, or cuda:N for the GPU with the index N.
    #[arg(long, default_value = "auto")]
    pub(crate) device: DeviceChoice,
}

/// A method to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trained {
    Vanilla,
    Lora,
    Adapter,
    AdapterFusion,
}

impl Trained {
    pub(crate) fn kind(self) -> MethodKind {
        match self {
            Self::Vanilla => MethodKind::Vanilla,
            Self::Lora => MethodKind::Lora,
            Self::Adapter => MethodKind::Adapter,
            Self::AdapterFusion => MethodKind::AdapterFusion,
        }
    }
}

impl ValueEnum for Trained {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Vanilla, Self::Lora, Self::Adapter, Self::AdapterFusion]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.kind().name()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModelShape {
    /// Multilingual BERT: 12 layers of 768, 178 M parameters.
    Mbert,
    /// 4 layers of 256, 5 M parameters.
    Mini,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum InputLayout {
    /// As in a run on this device: without padding on a CPU, padded to the longest sequence or a little
    /// more on a GPU.
    Device,
    /// Sequences one after another, without padding.
    Unpadded,
    /// Every sequence padded to 128 tokens.
    Padded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    /// A CUDA GPU if this program was built for one and one is here, the CPU otherwise.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA GPU with this index.
    Cuda(usize),
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(index) => write!(formatter, "cuda:{index}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let index = text.strip_prefix("cuda:").and_then(|index| index.parse().ok());
        match (text, index) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(index)) => Ok(Self::Cuda(index)),
            _ => Err("expected auto, cpu, cuda, or cuda:N with the index of a GPU".into()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// One JSON object per line.
    Jsonl,
    /// Tab-separated, with a header.
    Tsv,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_with_the_index_of_a_gpu_or_without() {
        let device = |text: &str| text.parse::<DeviceChoice>();
        assert_eq!(device("auto"), Ok(DeviceChoice::Auto));
        assert_eq!(device("cpu"), Ok(DeviceChoice::Cpu));
        assert_eq!(device("cuda"), Ok(DeviceChoice::Cuda(0)));
        assert_eq!(device("cuda:12"), Ok(DeviceChoice::Cuda(12)));
        for wrong in ["", "cuda:", "cuda:-1", "cuda:x", "cuda1", "cpu:0", "auto:0", "CUDA"] {
            assert!(device(wrong).unwrap_err().contains("cuda:N"), "{wrong}");
        }
    }

    #[test]
    fn an_empty_cache_folder_is_none() {
        let folder = |value: &str| {
            let args = ["nsmc", "evaluate", "--run", "run", "--cache", value];
            match Args::try_parse_from(args).expect("it is accepted").command {
                Command::Evaluate(evaluate) => evaluate.cache.folder(),
                _ => panic!("another command was given"),
            }
        };
        assert_eq!(folder("kept/here"), PathBuf::from("kept/here"));
        assert_eq!(folder(""), cache_folder());
    }

    #[test]
    fn the_corpus_is_that_of_the_manifest() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../datasets/manifest.toml");
        let manifest = nsmc_experiment::DatasetManifest::read(manifest.as_ref()).unwrap();
        let raw = manifest.datasets["nsmc"].raw.as_ref().unwrap();
        assert_eq!(raw.corpus_sha256, NSMC_CORPUS);
    }
}
