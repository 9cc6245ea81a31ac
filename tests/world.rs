//! A folder with data and a configuration, and the program run in it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nsmc_experiment::{FileHashes, WeightsKind, sha256_hex};

pub(crate) struct World {
    folder: tempfile::TempDir,
}

/// What a run of the program left.
pub(crate) struct Ran {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    /// 240 training and 80 test reviews in NSMC's format; words decide their labels.
    pub(crate) fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        world.write("train.txt", reviews(0..240));
        world.write("test.txt", reviews(1000..1080));
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs_err::write(self.path(name), text).unwrap();
    }

    /// A resolved configuration of a small model over the data as it is now.
    pub(crate) fn config(&self) -> String {
        let sha256 = |name: &str| sha256_hex(&fs_err::read(self.path(name)).unwrap());
        format!(
            r#"
seed = 7
[model]
source = "scratch"
vocab_size = 120
hidden_size = 16
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 32
max_position_embeddings = 24
hidden_dropout_prob = 0.1
attention_probs_dropout_prob = 0.1
[data]
dataset = "toy"
id_column = "id"
text_column = "document"
label_column = "label"
labels = ["0", "1"]
label_names = ["negative", "positive"]
delimiter = "\t"
quoting = false
train_size = 200
test_size = "all"
validation_fraction = 0.1
max_length = 24
[data.train]
path = "{train}"
sha256 = "{train_hash}"
class_counts = []
[data.test]
path = "{test}"
sha256 = "{test_hash}"
class_counts = []
[method]
name = "vanilla"
[training]
num_train_epochs = 6
train_batch_size = 16
learning_rate = 3e-3
warmup_ratio = 0.1
optimizer = "adamw_torch"
adam_beta1 = 0.9
adam_beta2 = 0.999
adam_epsilon = 1e-8
weight_decay = 0.01
max_grad_norm = 1.0
selection = "best"
save_steps = 0
[evaluation]
eval_batch_size = 16
metric_batch_size = 32
"#,
            train = self.path("train.txt").display(),
            train_hash = sha256("train.txt"),
            test = self.path("test.txt").display(),
            test_hash = sha256("test.txt"),
        )
    }

    /// The `[model]` section of a folder with a pre-trained model.
    pub(crate) fn pretrained(&self, folder: &str) -> String {
        let path = self.path(folder);
        let revision =
            WeightsKind::Model.sha256(&path, &FileHashes::default()).unwrap().unwrap_or_default();
        format!(
            "[model]\nsource = \"pretrained\"\nname = \"{folder}\"\nrevision = \"{revision}\"\n\
             path = \"{}\"\n",
            path.display()
        )
    }

    /// A configuration with that model instead of its own.
    pub(crate) fn with_model(config: &str, model: &str) -> String {
        let (start, end) = (config.find("[model]").unwrap(), config.find("[data]").unwrap());
        [&config[..start], model, &config[end..]].concat()
    }

    /// The same with another method: the `[method]` section.
    pub(crate) fn config_with(&self, method: &str) -> String {
        let config = self.config();
        assert!(config.contains("[method]\nname = \"vanilla\"\n"));
        config.replace("[method]\nname = \"vanilla\"\n", method)
    }

    pub(crate) fn nsmc(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }

    /// The program, ready to be started in the folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nsmc"));
        command
            .current_dir(self.folder.path())
            .env("NSMC_CACHE", self.path("cache"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .args(arguments);
        command
    }

    /// Trains `config` into `run`.
    pub(crate) fn train(&self, config: &str, run: &str) -> Ran {
        self.write("config.toml", config);
        self.nsmc(&["train", "--config", "config.toml", "--out", run, "--device", "cpu"])
    }

    pub(crate) fn read(&self, name: impl AsRef<Path>) -> String {
        fs_err::read_to_string(self.folder.path().join(name)).unwrap()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            success: output.status.success(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn reviews(ids: std::ops::Range<usize>) -> String {
    let filler =
        ["영화", "배우", "음악", "감독", "결말", "처음", "그냥", "정말", "\"인용\"", "ㅋㅋ"];
    let mut text = String::from("id\tdocument\tlabel\n");
    for id in ids {
        let label = id * 7 % 2;
        let mut words: Vec<&str> =
            (0..2 + id % 9).map(|word| filler[(id * 31 + word * 17 + id / 5) % 10]).collect();
        words.insert(id % words.len(), if label == 1 { "최고" } else { "최악" });
        let document = if id % 80 == 3 { String::new() } else { words.join(" ") };
        writeln!(text, "{id}\t{document}\t{label}").unwrap();
    }
    text
}
