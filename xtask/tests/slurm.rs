//! The launcher of Slurm with a Slurm of one node, which `tests/slurm/start.sh` starts.
//!
//!     apt-get install slurmctld slurmd munge slurm-client
//!     cargo build --release -p nsmc-cli
//!     NSMC_BIN=target/release/nsmc cargo test -p xtask --test slurm -- --ignored

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "says why a test does not run")]
#![expect(clippy::print_stdout, reason = "what a person would see")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Two trials, a cell that takes the better one's rate, one that waits for none, and a baseline.
const PROFILE: &str = r#"
[model]
source = "scratch"
vocab_size = 1000
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 64
max_position_embeddings = 64
hidden_dropout_prob = 0.1
attention_probs_dropout_prob = 0.1
[data]
dataset = "sample"
train_size = 400
test_size = 100
validation_fraction = 0.2
max_length = 64
[training]
num_train_epochs = 80
train_batch_size = 32
learning_rate = 1e-3
warmup_ratio = 0.0
optimizer = "adamw_torch"
adam_beta1 = 0.9
adam_beta2 = 0.999
adam_epsilon = 1e-8
weight_decay = 0.0
max_grad_norm = 1.0
selection = "best"
save_steps = 100
[evaluation]
eval_batch_size = 64
metric_batch_size = 32
[recipe.tuned]
[grid]
seeds = [1]
recipes = ["tuned"]
baselines = ["tfidf"]
cells = [{ method = "vanilla" }, { method = "head" }]
[override.head]
"method.trains" = ["head", "pooler", "embeddings"]
[trials]
seed = 9
[trials.candidates]
vanilla = [{ "training.learning_rate" = 1e-8 }, { "training.learning_rate" = 2e-3 }]
"#;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A Slurm that ends with its value.
struct Slurm {
    folder: PathBuf,
}

impl Slurm {
    /// On two ports of its own, with arrays of so many tasks. None where it is not installed, or there is
    /// no program to run.
    fn start(port: u16, max_array_size: usize) -> Option<(Self, PathBuf)> {
        if Command::new("sbatch").arg("--version").output().is_err() {
            eprintln!("not run: there is no Slurm here (tests/slurm/start.sh says what it needs)");
            return None;
        }
        let Some(nsmc) = std::env::var_os("NSMC_BIN") else {
            eprintln!("not run: NSMC_BIN names no program `nsmc`");
            return None;
        };
        let nsmc = repository().join(nsmc);
        let output = Command::new(repository().join("tests/slurm/start.sh"))
            .env("SLURMCTLD_PORT", port.to_string())
            .env("SLURMD_PORT", (port + 1).to_string())
            .env("MAX_ARRAY_SIZE", max_array_size.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tests/slurm/start.sh: {said}");
        let folder = String::from_utf8(output.stdout).unwrap().trim().into();
        Some((Self { folder }, nsmc))
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.folder.join("slurm.conf"));
        command
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        let script = repository().join("tests/slurm/stop.sh");
        let status = Command::new(script).arg(&self.folder).status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("a Slurm still runs in {}", self.folder.display());
        }
    }
}

/// A workspace with a profile and what it needs.
fn workspace(profile: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let names = [
        "configs/methods/vanilla.toml",
        "configs/methods/head.toml",
        "configs/methods/tfidf.toml",
        "datasets/manifest.toml",
        "datasets/sample/ratings_train.txt",
        "datasets/sample/ratings_test.txt",
        "models/manifest.toml",
    ];
    for name in names {
        let to = folder.path().join(name);
        fs_err::create_dir_all(to.parent().unwrap()).unwrap();
        fs_err::copy(repository().join(name), to).unwrap();
    }
    fs_err::write(folder.path().join("configs/one.toml"), profile).unwrap();
    folder
}

fn text(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{error}")
}

/// `cargo xtask reproduce --launcher slurm` in the workspace, and what it says.
fn reproduce(slurm: &Slurm, nsmc: &Path, workspace: &Path) -> String {
    let output = slurm
        .command(env!("CARGO_BIN_EXE_xtask"))
        .args(["reproduce", "--profile", "one", "--device", "cpu", "--launcher", "slurm"])
        .args(["--jobs", "2", "--slurm-option=--cpus-per-task=1"])
        .env("CARGO_MANIFEST_DIR", workspace.join("xtask"))
        .env("NSMC_BIN", nsmc)
        .env_remove("NSMC_MIRROR")
        .output()
        .unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    println!("$ reproduce --launcher slurm\n{said}");
    said
}

/// Waits until nothing is queued or at work.
fn wait(slurm: &Slurm) {
    let deadline = Instant::now() + Duration::from_mins(5);
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let queue = slurm.command("squeue").arg("--noheader").output().unwrap();
        if queue.stdout.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{}", text(&queue));
    }
}

/// Runs the grid to its end, of which the first command says what it submits.
fn runs_a_grid(port: u16, max_array_size: usize, submits: &[&str]) {
    let Some((slurm, nsmc)) = Slurm::start(port, max_array_size) else { return };
    let workspace = workspace(PROFILE);
    let reproduce = || reproduce(&slurm, &nsmc, workspace.path());
    let first = reproduce();
    for submitted in submits {
        assert!(first.contains(submitted), "{submitted}: {first}");
    }
    // Slurm says why a job waits once its scheduler has looked at it.
    std::thread::sleep(Duration::from_secs(3));
    let second = reproduce();
    assert!(second.contains("waits for its trials"), "{second}");
    assert!(!second.contains("submitted"), "what is queued is not submitted again: {second}");

    wait(&slurm);
    let last = reproduce();
    assert!(last.contains("runs: 5 in all, 5 done"), "{last}");
    assert!(last.contains("vanilla takes training.learning_rate = 0.002"), "{last}");
    for words in
        ["Baseline: TF-IDF, logistic regression", "Head and parts of the model only", "report: "]
    {
        assert!(last.contains(words), "{words}: {last}");
    }
    assert!(!last.contains("not run"), "{last}");
    // Nothing is left of how the runs were started.
    for entry in fs_err::read_dir(workspace.path().join("runs")).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.extension().is_none_or(|extension| extension != "toml"), "{}", path.display());
    }
}

#[test]
#[ignore = "needs Slurm, root and NSMC_BIN: tests/slurm/start.sh"]
fn slurm_runs_a_grid_in_its_order_and_the_same_command_prints_its_tables() {
    let submits = ["submitted 4 runs as job 1: ", "submitted 1 run as job 2, after 2 trials: "];
    runs_a_grid(16_817, 1001, &submits);
}

#[test]
#[ignore = "needs Slurm, root and NSMC_BIN: tests/slurm/start.sh"]
fn trials_in_two_arrays_are_waited_for_as_in_one() {
    let submits = [
        "submitted 2 runs as job 1: ",
        "submitted 2 runs as job 2: ",
        "submitted 1 run as job 3, after 2 trials: ",
    ];
    runs_a_grid(16_837, 2, &submits);
}

#[test]
#[ignore = "needs Slurm, root and NSMC_BIN: tests/slurm/start.sh"]
fn what_waits_for_a_trial_that_fails_is_not_started_and_is_submitted_again() {
    let Some((slurm, nsmc)) = Slurm::start(16_827, 1001) else { return };
    // More tokens than the model has positions.
    let profile = PROFILE
        .replace("learning_rate\" = 1e-8", "learning_rate\" = 1e-8, \"data.max_length\" = 128");
    let workspace = workspace(&profile);
    let reproduce = || reproduce(&slurm, &nsmc, workspace.path());
    assert!(reproduce().contains("submitted 1 run as job 2, after 2 trials: "));
    wait(&slurm);
    let last = reproduce();
    assert!(last.contains("failed: `data.max_length`: expected at most the model's 64"), "{last}");
    let waited = last.lines().find(|line| line.contains("2_0")).unwrap();
    assert!(waited.contains("not started"), "{waited}");
    assert!(last.contains("submitted 1 run as job "), "the trial, again: {last}");
    slurm.command("scancel").arg("--me").status().unwrap();
}
