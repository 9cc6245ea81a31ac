//! A folder with data and a configuration, and the program run in it.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nsmc_experiment::{FileHashes, WeightsKind, sha256_hex};

/// How long a process may take to get somewhere. What is waited for takes seconds, and on a busy
/// machine ten times as long.
const DEADLINE: Duration = Duration::from_mins(2);
/// How long it may take to its end.
const LAST_DEADLINE: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(2);

pub(crate) struct World {
    folder: tempfile::TempDir,
}

/// What a run of the program left.
pub(crate) struct Ran {
    pub(crate) success: bool,
    /// Its exit status; none if a signal ended it.
    pub(crate) code: Option<i32>,
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
            r#"numerics = 2
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
        self.start(arguments).end()
    }

    /// Starts the program in the folder.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    /// The program, ready to be started in the folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_nsmc"));
        command.args(arguments);
        command
    }

    /// Any program, ready to be started in the folder; nothing that is set outside of the tests
    /// changes what `nsmc` does.
    pub(crate) fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if decides_what_nsmc_does(&name) {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.folder.path())
            .env("NSMC_CACHE", self.path("cache"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .stdin(Stdio::null());
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

fn decides_what_nsmc_does(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    let prefixes = ["NSMC_", "HF_", "MIMALLOC_"];
    name == "RAYON_NUM_THREADS" || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// A process at work, for which nothing waits without end. It is killed when it is dropped.
pub(crate) struct Running {
    process: Child,
    // Files, not pipes: one that is full holds up who writes, and one that a grandchild has open
    // holds up who reads.
    stdout: tempfile::NamedTempFile,
    stderr: tempfile::NamedTempFile,
}

impl Running {
    pub(crate) fn start(command: Command) -> Self {
        let stdout = tempfile::NamedTempFile::new().unwrap();
        let mut running = Self::start_into(command, stdout.reopen().unwrap().into());
        running.stdout = stdout;
        running
    }

    /// The same, with its results going somewhere else.
    pub(crate) fn start_into(mut command: Command, stdout: Stdio) -> Self {
        let [results, stderr] = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
        command.stdout(stdout).stderr(stderr.reopen().unwrap());
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { process, stdout: results, stderr }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Writes to its standard input, which must be a pipe.
    pub(crate) fn types(&mut self, keys: &str) {
        let stdin = self.process.stdin.as_mut().unwrap();
        std::io::Write::write_all(stdin, keys.as_bytes()).unwrap();
    }

    pub(crate) fn at_work(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Waits until the condition holds, which must be before the process ends.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, condition: impl FnMut() -> bool) {
        assert!(self.reaches(what, condition), "it ended before {what}: {}", self.said());
    }

    /// Waits until the condition holds, or the process ends; whether it was the condition.
    #[track_caller]
    pub(crate) fn reaches(&mut self, what: &str, mut condition: impl FnMut() -> bool) -> bool {
        let started = Instant::now();
        loop {
            if condition() {
                return true;
            }
            if !self.at_work() {
                return false;
            }
            let waited = started.elapsed();
            assert!(waited < DEADLINE, "after {waited:?} not yet {what}: {}", self.said());
            std::thread::sleep(POLL);
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ran {
        let status = self.status();
        let [stdout, stderr] = [&self.stdout, &self.stderr]
            .map(|file| String::from_utf8(fs_err::read(file.path()).unwrap()).unwrap());
        Ran { success: status.success(), code: status.code(), stdout, stderr }
    }

    #[track_caller]
    fn status(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            let waited = started.elapsed();
            assert!(waited < LAST_DEADLINE, "after {waited:?} not at its end: {}", self.said());
            std::thread::sleep(POLL);
        }
    }

    /// Kills it; whether it was still at work.
    pub(crate) fn kill(&mut self) -> bool {
        let at_work = self.at_work();
        self.process.kill().unwrap();
        // It may have come to its end in between.
        at_work && !self.status().success()
    }

    /// What it said until now.
    fn said(&self) -> String {
        let said = |file: &tempfile::NamedTempFile| fs_err::read(file.path()).unwrap_or_default();
        let (stdout, stderr) = (said(&self.stdout), said(&self.stderr));
        format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is no error.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The newest of the checkpoints to go on from, `step-N/` in a folder.
pub(crate) fn newest_step(folder: &Path) -> Option<usize> {
    // It may be gone between two looks.
    let entries = fs_err::read_dir(folder).ok()?;
    let step = |name: &OsStr| name.to_str()?.strip_prefix("step-")?.parse().ok();
    entries.filter_map(|entry| step(&entry.ok()?.file_name())).max()
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

#[test]
fn a_process_that_has_ended_is_not_waited_for() {
    let world = World::new();
    let mut command = world.program("sh");
    command.args(["-c", "echo a result; echo a reason >&2; exit 3"]);
    let mut running = Running::start(command);
    let waits = std::panic::AssertUnwindSafe(|| running.until("the day of judgement", || false));
    let panic = std::panic::catch_unwind(waits).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    for expected in ["it ended before the day of judgement", "a result", "a reason"] {
        assert!(message.contains(expected), "{message}");
    }
    assert!(!running.kill(), "it was gone already");
    assert!(!running.end().success);
}
