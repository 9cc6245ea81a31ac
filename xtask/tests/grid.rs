//! Whole grids of `cargo xtask reproduce`: killed, spread over GPUs, started again.
//!
//! The program of the runs is a stand-in, [`stand_in`], which this file is started as. Kills with the
//! real one, ten times as many:
//!
//!     cargo build --release -p nsmc-cli
//!     NSMC_BIN=target/release/nsmc cargo test -p xtask --test grid -- --ignored --nocapture

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "the stand-in says why it fails, a campaign what it did")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsmc_eval::{Prediction, Predictions};
use nsmc_experiment::{
    EpochRecord, ExperimentConfig, FileLock, RunRecord, RunResults, RunStatus, sha256_hex,
};

/// Two trials, a cell that takes the better one's rate, one that waits for none, two seeds.
const PROFILE: &str = r#"
[model]
source = "scratch"
vocab_size = 1000
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
max_position_embeddings = 32
hidden_dropout_prob = 0.1
attention_probs_dropout_prob = 0.1
[data]
dataset = "sample"
train_size = 200
test_size = 100
validation_fraction = 0.2
max_length = 32
[training]
num_train_epochs = 8
train_batch_size = 16
learning_rate = 1e-3
warmup_ratio = 0.0
optimizer = "adamw_torch"
adam_beta1 = 0.9
adam_beta2 = 0.999
adam_epsilon = 1e-8
weight_decay = 0.0
max_grad_norm = 1.0
selection = "best"
save_steps = 5
[evaluation]
eval_batch_size = 32
metric_batch_size = 32
[recipe.tuned]
[grid]
seeds = [1, 2]
recipes = ["tuned"]
cells = [{ method = "vanilla" }, { method = "head" }]
[override.head]
"method.trains" = ["head", "pooler", "embeddings"]
[trials]
seed = 9
[trials.candidates]
vanilla = [{ "training.learning_rate" = 1e-8 }, { "training.learning_rate" = 2e-3 }]
"#;

/// The last arguments of the stand-in, a line each.
const STAND_IN: &str = "NSMC_STAND_IN";
/// Milliseconds that the stand-in goes on after its standard input has ended.
const LINGER: &str = "NSMC_STAND_IN_LINGERS";
/// A file: the stand-in's first step takes until it is there.
const LONG_STEP: &str = "NSMC_STAND_IN_STEPS_UNTIL";

/// What no grid here takes.
const DEADLINE: Duration = Duration::from_mins(5);

/// A workspace with the profile, and the program of its runs.
struct World {
    folder: tempfile::TempDir,
    nsmc: PathBuf,
}

impl World {
    /// With the stand-in as program.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let nsmc = folder.path().join("nsmc");
        let this = std::env::current_exe().unwrap();
        // The third output is the program's, the test harness keeps the first.
        let script = format!(
            "#!/bin/sh\nexport {STAND_IN}=\"$(printf '%s\\n' \"$@\")\"\n\
             exec '{}' --exact stand_in --ignored --nocapture --quiet 3>&1 >/dev/null\n",
            this.display()
        );
        write_program(&nsmc, &script);
        Self::with(folder, nsmc)
    }

    fn with(folder: tempfile::TempDir, nsmc: PathBuf) -> Self {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let names = [
            "configs/methods/vanilla.toml",
            "configs/methods/head.toml",
            "datasets/manifest.toml",
            "datasets/sample/ratings_train.txt",
            "datasets/sample/ratings_test.txt",
            "models/manifest.toml",
        ];
        for name in names {
            let to = folder.path().join(name);
            fs_err::create_dir_all(to.parent().unwrap()).unwrap();
            fs_err::copy(repository.join(name), to).unwrap();
        }
        fs_err::write(folder.path().join("configs/one.toml"), PROFILE).unwrap();
        Self { folder, nsmc }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `cargo xtask reproduce` into `runs`; the profile is `one`.
    fn command(&self, runs: &str, arguments: &[&str]) -> Command {
        let mut command = self.xtask(&["reproduce", "--profile", "one", "--runs", runs]);
        command.args(arguments);
        command
    }

    /// `cargo xtask`.
    fn xtask(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(arguments)
            .env("CARGO_MANIFEST_DIR", self.path("xtask"))
            .env("NSMC_BIN", &self.nsmc)
            .env("NSMC_CACHE", self.path("cache"))
            .env("RAYON_NUM_THREADS", "2")
            .env_remove("NSMC_MIRROR")
            .stdin(Stdio::null());
        command
    }

    /// The same to its end, and what it said.
    fn said_by(&self, runs: &str, arguments: &[&str]) -> (bool, String) {
        let output = self.command(runs, arguments).output().unwrap();
        let [out, error] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
        (output.status.success(), format!("{out}{error}"))
    }

    /// The same in the background, two runs at once; what it says goes to `RUNS.txt`.
    fn reproduce(&self, runs: &str, environment: &[(&str, &str)]) -> Grid {
        let log = fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(&format!("{runs}.txt")))
            .unwrap();
        let child = self
            .command(runs, &["--device", "cpu", "--jobs", "2"])
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(log.into_parts().0)
            .spawn()
            .unwrap();
        Grid { child }
    }

    fn said(&self, runs: &str) -> String {
        fs_err::read_to_string(self.path(&format!("{runs}.txt"))).unwrap_or_default()
    }

    /// The run directories.
    fn runs(&self, runs: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs_err::read_dir(self.path(runs)) else { return Vec::new() };
        let mut folders: Vec<PathBuf> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.join(".lock").is_file())
            .collect();
        folders.sort();
        folders
    }

    /// The processes at work in run directories, by what the locks say: to try one would keep a run
    /// from starting.
    fn at_work(&self, runs: &str) -> Vec<Pid> {
        let holders = self.runs(runs).into_iter();
        let holders = holders.filter_map(|folder| FileLock::holder(&folder.join(".lock")));
        // Another process may have the number by now.
        let place = self.folder.path().display().to_string();
        let ours = |pid: &u32| {
            let environment = fs_err::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&place)
        };
        holders.filter(ours).map(|pid| Pid::from_raw(pid.cast_signed())).collect()
    }

    /// What is the same whenever a grid is done: what each run found, without times, and its
    /// predictions.
    fn records(&self, runs: &str) -> BTreeMap<String, (RunResults, String)> {
        let record = |folder: PathBuf| {
            let record = RunRecord::read(&folder.join("record.json")).unwrap();
            assert_eq!(record.status, RunStatus::Success, "{}", folder.display());
            let mut results = record.results.unwrap();
            results.test_seconds = 0.0;
            results.peak_memory_mib = None;
            assert!(results.epoch_seconds_alone.take().is_some() || record.config.seed == 9);
            results.epochs.iter_mut().for_each(|epoch| epoch.train_seconds = 0.0);
            let predictions = fs_err::read_to_string(folder.join("predictions.tsv")).unwrap();
            (record.run_id, (results, predictions))
        };
        self.runs(runs).into_iter().map(record).collect()
    }

    /// That nothing is left of how the runs of a finished grid were started: no configuration, no lock.
    fn assert_swept(&self, runs: &str) {
        assert_eq!(self.at_work(runs), []);
        for entry in fs_err::read_dir(self.path(runs)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            // That of the programs is the grids' own.
            let left = [".toml", ".lock"].iter().any(|end| name.ends_with(end));
            assert!(!left || name == ".program.lock", "{}", path.display());
        }
    }
}

/// Writes a program without ever having it open in this process: a thread that starts another one
/// meanwhile would hand it on, and the program could not be started ("text file busy").
fn write_program(path: &Path, text: &str) {
    let mut shell = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod +x \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut shell.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
}

/// A started `cargo xtask reproduce`; killed, if the test fails.
struct Grid {
    child: Child,
}

impl Grid {
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    fn end(&mut self) -> ExitStatus {
        until("a grid does not end", || self.has_ended())
    }
}

impl Drop for Grid {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a value, for a time.
fn until<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Numbers that look random and repeat themselves.
struct Random(u64);

impl Random {
    /// Between 0 and 1.
    fn share(&mut self) -> f64 {
        // Knuth's MMIX generator.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / (1_u64 << 24) as f64
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// Kills xtask, a run or both at random moments, `kills` times, and starts the same command again at
/// once; in the end the records are those of a grid that was left alone.
fn campaign(world: &World, kills: u64) {
    let mut random = Random(number("NSMC_KILL_SEED", 1));
    let started = Instant::now();
    assert!(world.reproduce("whole", &[]).end().success(), "{}", world.said("whole"));
    let time = started.elapsed();
    let whole = world.records("whole");
    assert_eq!(whole.len(), 6, "two trials, two cells with two seeds each");
    world.assert_swept("whole");

    let check = || {
        assert_eq!(world.records("killed"), whole, "{}", world.said("killed"));
        world.assert_swept("killed");
    };
    let (mut done, mut runs_killed, mut grids_killed, mut ends) = (0, 0, 0, 0);
    while done < kills {
        // So that some are still there when the next grid starts.
        let mut grid = world.reproduce("killed", &[(LINGER, "150")]);
        std::thread::sleep(time.mul_f64(0.8 * random.share()));
        let what = random.share();
        if what < 0.6 {
            let at_work = world.at_work("killed");
            if let Some(&run) = at_work.get((random.share() * at_work.len() as f64) as usize) {
                // One that has just ended is no error.
                let _ = kill(run, Signal::SIGKILL);
                (done, runs_killed) = (done + 1, runs_killed + 1);
            }
        }
        if what > 0.3 && grid.has_ended().is_none() {
            grid.kill();
            (done, grids_killed) = (done + 1, grids_killed + 1);
            continue;
        }
        if grid.end().success() {
            check();
            fs_err::remove_dir_all(world.path("killed")).unwrap();
            ends += 1;
        }
    }
    let last = world.reproduce("killed", &[]).end();
    let said = world.said("killed");
    assert!(last.success(), "{said}");
    check();
    // The one reason to fail that a run may have had.
    let failures = said.lines().filter(|line| line.contains(": failed ("));
    let failures: Vec<&str> = failures.filter(|line| !line.contains("SIGKILL")).collect();
    assert!(failures.is_empty() && !said.contains("panicked"), "{said}");
    eprintln!(
        "{grids_killed} grids and {runs_killed} runs killed, {} grids ended equal, {} waits for a run",
        ends + 1,
        said.matches("waiting for it to end").count()
    );
}

/// `NSMC_KILLS` kills, 8 without it; `NSMC_KILL_SEED` gives other moments.
#[test]
fn a_grid_that_is_killed_at_random_moments_ends_with_the_records_of_one_that_is_not() {
    campaign(&World::new(), number("NSMC_KILLS", 8));
}

#[test]
#[ignore = "needs NSMC_BIN, a built `nsmc`: see above"]
fn a_grid_of_real_runs_that_is_killed_at_random_moments_ends_with_the_records_of_one_that_is_not() {
    let Some(nsmc) = std::env::var_os("NSMC_BIN") else { return };
    // Tests are started in the folder of their crate.
    let nsmc = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(nsmc);
    campaign(&World::with(tempfile::tempdir().unwrap(), nsmc), number("NSMC_KILLS", 80));
}

#[test]
fn a_grid_that_is_started_again_waits_for_the_runs_of_the_one_that_was_killed() {
    let world = World::new();
    let go_on = world.path("go-on");
    let long = [(LONG_STEP, go_on.to_str().unwrap())];
    let mut first = world.reproduce("runs", &long);
    until("no two runs are at work", || (world.at_work("runs").len() == 2).then_some(()));
    let runs = world.at_work("runs");
    first.kill();
    let mut second = world.reproduce("runs", &long);
    for run in runs {
        let words = format!("process {run} is at work on it; waiting for it to end");
        until(&words, || world.said("runs").contains(&words).then_some(()));
    }
    fs_err::write(go_on, "").unwrap();
    let status = second.end();
    let said = world.said("runs");
    assert!(status.success(), "{said}");
    assert_eq!(said.matches("waiting for it to end").count(), 2, "{said}");
    assert_eq!(world.records("runs").len(), 6);
    world.assert_swept("runs");
}

#[test]
fn runs_are_spread_over_gpus_and_timed_on_one() {
    let world = World::new();
    let gpus = ["--device", "cuda", "--devices", "2,5"];
    let (success, plan) =
        world.said_by("runs", &[&gpus[..], &["--jobs", "3", "--dry-run"]].concat());
    assert!(success && plan.contains(", 6 runs at once on 2 GPUs"), "{plan}");
    let (success, said) = world.said_by("runs", &[&gpus[..], &["--resume"]].concat());
    assert!(success && said.contains("2 runs at once on 2 GPUs"), "{said}");
    let (mut trained, mut timed) = (BTreeMap::new(), BTreeMap::new());
    for folder in world.runs("runs") {
        for line in fs_err::read_to_string(folder.join("started")).unwrap().lines() {
            let (_, device) = line.split_once("--device ").unwrap();
            let device = device.split(' ').next().unwrap().to_owned();
            let count = if line.starts_with("bench") { &mut timed } else { &mut trained };
            *count.entry(device).or_insert(0) += 1;
        }
    }
    assert_eq!(trained.values().sum::<i32>(), 6);
    assert_eq!(trained.keys().collect::<Vec<_>>(), ["cuda:2", "cuda:5"]);
    assert_eq!(timed, BTreeMap::from([("cuda:2".to_owned(), 4)]));

    // The GPU is no part of a run's identity.
    let (success, again) = world.said_by("runs", &["--device", "cpu", "--resume"]);
    assert!(success && again.contains("runs: 6 in all, 6 done"), "{again}");
    let last = again.lines().last().unwrap();
    assert!(last.starts_with("These are not the paper's numbers: "), "{last}");
    assert!(last.ends_with("runs/report-one.html."), "{last}");
}

#[test]
fn gpus_that_cannot_be_meant_are_refused_before_anything_runs() {
    let world = World::new();
    let cases = [
        (&["--device", "cpu", "--devices", "0"][..], "`--device cpu` asks for none"),
        (&["--device", "cuda", "--devices", "0,1,0"], "`--devices`: 0 stands there twice"),
        (&["--device", "cuda", "--devices", "0", "--launcher", "slurm"], "--slurm-option=--gres"),
        (&["--device", "cuda", "--devices", "first"], "invalid value 'first'"),
    ];
    for (arguments, words) in cases {
        let (success, said) = world.said_by("runs", arguments);
        assert!(!success && said.contains(words), "{arguments:?}: {said}");
    }
    assert!(!world.path("runs").exists());
}

#[test]
fn a_reader_that_goes_away_keeps_no_run_from_its_end() {
    let world = World::new();
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    let reproduce = |arguments: &[&str], stdout: Stdio| {
        let output = world.command("runs", arguments).stdout(stdout).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let cpu = ["--device", "cpu"];
    let (success, said) = reproduce(&cpu, closed());
    assert!(success, "{said}");
    assert_eq!(world.runs("runs").len(), 6, "{said}");
    assert!(world.path("runs/report-one.html").is_file(), "{said}");

    // What cannot be printed for another reason is a failure, at the end.
    fs_err::remove_file(world.path("runs/report-one.html")).unwrap();
    let full = || Stdio::from(fs_err::File::create("/dev/full").unwrap().into_parts().0);
    let (success, said) = reproduce(&cpu, full());
    assert!(!success && said.matches("error: stdout: ").count() == 1, "{said}");
    assert!(world.path("runs/report-one.html").is_file(), "{said}");

    // The plan, which is printed before a failure, takes nothing from it.
    let mut fails = world.command("others", &cpu);
    let output = fails.env("NSMC_BIN", "nowhere").stdout(closed()).output().unwrap();
    assert!(!output.status.success());
}

#[test]
fn a_program_that_is_named_is_relative_to_the_current_folder() {
    let mut world = World::new();
    world.nsmc = "../nsmc".into();
    let train = ["train", "--profile", "one", "--method", "head", "--device", "cpu"];
    let output = world.xtask(&train).current_dir(world.path("configs")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(world.runs("runs").len(), 1);
}

/// The profile that falls back to the sample looks whether its data can be fetched, by its first cell.
#[test]
fn a_key_of_one_method_is_nothing_to_the_others_of_the_profile() {
    let world = World::new();
    fs_err::copy(world.path("configs/one.toml"), world.path("configs/mini.toml")).unwrap();
    let train = ["train", "--profile", "mini", "--method", "head", "--device", "cpu"];
    let head_alone = ["--runs", "runs", "--set", "method.trains=[\"head\"]"];
    let output = world.xtask(&[&train[..], &head_alone].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [run] = &world.runs("runs")[..] else { panic!("one run") };
    let config = fs_err::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("trains = [\"head\"]"), "{config}");
}

/// `nsmc train --config FILE --out DIR --device cpu --stop-with-stdin` that takes a while to write its
/// checkpoint.
const SLOW_TO_STOP: &str = r#"#!/bin/sh
root='ROOT'
trap 'echo >> "$root/signals"; sleep 1; echo >> "$root/checkpoint"; exit 1' TERM INT
mkdir -p "$5"
echo >> "$root/training"
# A minute: a test that has failed does not stop it.
turns=0
while [ $turns -lt 1200 ]; do sleep 0.05; turns=$((turns + 1)); done
"#;

/// As a terminal does: Ctrl-C goes to the whole process group.
#[test]
fn ctrl_c_reaches_a_run_once_and_the_prompt_waits_for_its_checkpoint() {
    let world = World::new();
    let nsmc = world.path("slow");
    write_program(&nsmc, &SLOW_TO_STOP.replace("ROOT", &world.path("").display().to_string()));
    let mut train = world.xtask(&[
        "train",
        "--profile",
        "one",
        "--method",
        "head",
        "--runs",
        "runs",
        "--device",
        "cpu",
    ]);
    let log = fs_err::File::create(world.path("runs.txt")).unwrap();
    train.env("NSMC_BIN", &nsmc).stdout(Stdio::null()).stderr(log.into_parts().0);
    std::os::unix::process::CommandExt::process_group(&mut train, 0);
    let mut train = Grid { child: train.spawn().unwrap() };
    let lines =
        |name: &str| fs_err::read_to_string(world.path(name)).unwrap_or_default().lines().count();
    until("it does not begin", || (lines("training") == 1).then_some(()));
    let group = Pid::from_raw(-train.child.id().cast_signed());
    kill(group, Signal::SIGINT).unwrap();
    let status = train.end();
    let said = world.said("runs");
    assert_eq!((lines("signals"), lines("checkpoint")), (1, 1), "{said}");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("stopping: the run writes a checkpoint"), "{said}");
    assert!(said.trim_end().ends_with("stopped; the same command goes on"), "{said}");
    world.assert_swept("runs");
}

#[test]
fn what_is_mistyped_of_the_data_is_told_before_any_run_is_started() {
    let world = World::new();
    let columns =
        "expected a column `documnet`, found id, document, label (`data.delimiter` is \"\\t\")";
    let cases = [
        ("data.trian_size=5", "`data.trian_size`: unknown key; did you mean `train_size`?"),
        (
            "data.train_size=2001",
            "`data.train_size`: expected \"all\" or at most 2000, the rows of",
        ),
        ("data.max_length=33", "`data.max_length`: expected at most the model's 32 positions"),
        ("data.text_column=documnet", columns),
        (
            "data.train.path=configs/one.toml",
            "`data.train.sha256`: configs/one.toml: expected sha256",
        ),
    ];
    for (set, expected) in cases {
        let one = ["train", "--profile", "one", "--method", "head", "--runs", "runs"];
        for command in [&one[..], &["reproduce", "--profile", "one", "--runs", "runs"]] {
            let arguments = [command, &["--device", "cpu", "--set", set]].concat();
            let output = world.xtask(&arguments).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(expected), "{arguments:?}: {said}");
            assert!(world.runs("runs").is_empty(), "{arguments:?}: a run was started");
        }
    }
}

#[test]
fn trials_without_a_validation_split_are_told_by_the_plan() {
    let world = World::new();
    let set = ["--set", "data.validation_fraction=0", "--set", "training.selection=\"last\""];
    for more in [&["--dry-run"][..], &[]] {
        let arguments = [&["--device", "cpu"], &set[..], more].concat();
        let (success, said) = world.said_by("runs", &arguments);
        let expected = "`data.validation_fraction`: expected a share that holds out at least one \
                        review, found 0, which is none of the 2000 rows";
        assert!(!success && said.contains(expected), "{said}");
        assert!(world.runs("runs").is_empty(), "a run was started");
    }
}

#[test]
fn a_grid_that_is_done_but_for_its_predictions_says_so_until_it_is_run_anew() {
    let world = World::new();
    let (success, said) = world.said_by("runs", &["--device", "cpu", "--jobs", "2"]);
    assert!(success, "{said}");
    let records = world.records("runs");
    let lost = world.runs("runs").into_iter().find(|run| run.to_string_lossy().contains("head-"));
    let lost = lost.unwrap();
    let id = lost.file_name().unwrap().to_str().unwrap();
    fs_err::remove_file(lost.join("predictions.tsv")).unwrap();

    let shown = format!("{id} is done, but its predictions.tsv is gone");
    let (success, said) = world.said_by("runs", &["--device", "cpu", "--dry-run"]);
    assert!(success && said.contains(&shown), "{said}");
    let (success, said) = world.said_by("runs", &["--device", "cpu", "--jobs", "2"]);
    assert!(!success && said.contains(&shown), "{said}");
    assert!(said.contains("1 of 6 runs cannot be read, and are in no table"), "{said}");
    let train =
        ["train", "--profile", "one", "--method", "head", "--device", "cpu", "--runs", "runs"];
    let seed = RunRecord::read(&lost.join("record.json")).unwrap().config.seed.to_string();
    let train = |more: &[&str]| {
        let output =
            world.xtask(&[&train[..], &["--seed", &seed], more].concat()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (success, said) = train(&[]);
    assert!(!success && said.contains("no such file, but record.json says"), "{said}");
    assert!(said.contains("`cargo xtask train` does with `--again`"), "{said}");

    let (success, said) = train(&["--again"]);
    assert!(success, "{said}");
    let (success, said) = world.said_by("runs", &["--device", "cpu", "--jobs", "2"]);
    assert!(success && !said.contains("predictions.tsv is gone"), "{said}");
    assert_eq!(world.records("runs"), records);
}

/// `nsmc` as a grid knows it: locks its run directory, goes on from its checkpoint, stops when it is
/// told to, leaves a record. Each step changes a number, so that one too few or too many shows.
#[test]
#[ignore = "the program of the other tests' runs"]
fn stand_in() {
    let Ok(arguments) = std::env::var(STAND_IN) else { return };
    let arguments: Vec<&str> = arguments.lines().collect();
    let code = match stand_in_for(&arguments) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {error}");
            1
        }
    };
    std::process::exit(code);
}

fn stand_in_for(arguments: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    let value = |name: &str| {
        let place = arguments.iter().position(|argument| *argument == name)?;
        Some(PathBuf::from(arguments.get(place + 1)?))
    };
    let ended = Arc::new(AtomicBool::new(false));
    if arguments.contains(&"--stop-with-stdin") {
        let ended = ended.clone();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            std::thread::sleep(Duration::from_millis(number(LINGER, 0)));
            ended.store(true, Ordering::Relaxed);
        });
    }
    let folder = value("--out").or_else(|| value("--run")).ok_or("no folder")?;
    fs_err::create_dir_all(&folder)?;
    let Some(_lock) = FileLock::try_acquire(&folder.join(".lock"))? else {
        return Err("another process is at work in this run directory".into());
    };
    let mut started = fs_err::read_to_string(folder.join("started")).unwrap_or_default();
    started += &arguments.join(" ");
    replace(&folder.join("started"), &(started + "\n"))?;
    let path = folder.join("record.json");
    if arguments[0] == "bench" {
        std::thread::sleep(Duration::from_millis(30));
        let mut record = RunRecord::read(&path)?;
        record.results.as_mut().ok_or("no results")?.epoch_seconds_alone = Some(1.5);
        record.write(&path)?;
        return Ok(fs_err::write("/dev/fd/3", "{\"epoch_s\": 1.5}\n")?);
    }
    let config = ExperimentConfig::read(&value("--config").ok_or("no configuration")?)?;
    replace(&folder.join("config.toml"), &config.to_toml())?;
    let checkpoint = folder.join("checkpoint");
    let (mut step, mut number): (u64, u64) = match fs_err::read_to_string(&checkpoint) {
        Ok(text) => {
            let (step, number) = text.split_once(' ').ok_or("a damaged checkpoint")?;
            (step.parse()?, number.parse()?)
        }
        Err(_) => (0, u64::from_str_radix(&config.identity()[..8], 16)?),
    };
    while step < 20 {
        step += 1;
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step);
        std::thread::sleep(Duration::from_millis(15));
        if let Some(there) = std::env::var_os(LONG_STEP)
            && step == 1
        {
            until("nobody lets the step end", || Path::new(&there).exists().then_some(()));
        }
        if step.is_multiple_of(4) || ended.load(Ordering::Relaxed) {
            replace(&checkpoint, &format!("{step} {number}"))?;
        }
        if ended.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
    }
    let record = record(&config, number, &folder)?;
    let device = value("--device").ok_or("no device")?;
    let device = match device.to_string_lossy().strip_prefix("cuda:") {
        Some(gpu) => format!("CUDA GPU {gpu} (burn-cuda)"),
        None => record.device.clone(),
    };
    RunRecord { device, ..record }.write(&path)?;
    Ok(())
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    fs_err::write(&partial, text)?;
    fs_err::rename(partial, path)
}

/// The record of a run that came to this number, and its predictions.
fn record(
    config: &ExperimentConfig,
    number: u64,
    folder: &Path,
) -> Result<RunRecord, Box<dyn std::error::Error>> {
    let rows = (0..100_usize).map(|id| Prediction {
        id: id.to_string(),
        label: id % 2,
        in_training: false,
        logits: vec![(number >> (id % 60) & 1) as f32, 0.5],
    });
    let predictions = Predictions { num_labels: 2, rows: rows.collect() };
    let mut bytes = Vec::new();
    predictions.write(&mut bytes)?;
    replace(&folder.join("predictions.tsv"), &String::from_utf8(bytes.clone())?)?;
    let epoch = EpochRecord {
        epoch: 1,
        steps: 20,
        train_seconds: 0.3,
        tokens: 900,
        train_loss: 0.5,
        validation_loss: Some(0.5),
        validation_accuracy: Some((number % 1000) as f64 / 1000.0),
    };
    let results = RunResults {
        trainable_parameters: 1,
        total_parameters: 1,
        train_reviews: 160,
        validation_reviews: 40,
        test_reviews: 100,
        truncated_reviews: 0,
        adapter_stage: None,
        steps: 20,
        epochs: vec![epoch],
        epoch_seconds_alone: None,
        tested_epoch: 1,
        test_seconds: 0.1,
        peak_memory_mib: None,
        predictions_sha256: sha256_hex(&bytes),
    };
    Ok(RunRecord {
        run_id: config.run_id(),
        identity: config.identity(),
        status: RunStatus::Success,
        started: 0,
        total_seconds: 1.0,
        stretches: Vec::new(),
        provenance: None,
        device: "CPU, 1 threads (burn-flex)".into(),
        threads: 1,
        version: String::new(),
        results: Some(results),
        config: config.without_paths(),
    })
}
