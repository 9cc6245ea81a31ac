//! Grids of runs whose program is a script: it leaves the records that a test put ready for it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nsmc_eval::{Prediction, Predictions};
use nsmc_experiment::{
    EpochRecord, ExperimentConfig, FileLock, Rows, RunRecord, RunResults, RunStatus, sha256_hex,
};

use super::estimate::Speeds;
use super::plan::{Plan, State};
use super::schedule::{Outcome, Starting, run, why_it_ended};
use super::stop::Stop;
use super::timing::{Timed, time, to_time};
use crate::args::{DeviceChoice, Options, Source};
use crate::holder::Attempt;
use crate::nsmc::Nsmc;
use crate::train::Run;
use crate::workspace::Workspace;

const PROFILE: &str = r#"
[model]
source = "scratch"
vocab_size = 100
hidden_size = 8
num_hidden_layers = 1
num_attention_heads = 1
intermediate_size = 8
max_position_embeddings = 16
hidden_dropout_prob = 0.0
attention_probs_dropout_prob = 0.0
[data]
dataset = "toy"
train_size = 100
test_size = "all"
validation_fraction = 0.1
max_length = 16
[training]
num_train_epochs = 2
train_batch_size = 10
learning_rate = 1e-3
warmup_ratio = 0.0
optimizer = "adamw_torch"
adam_beta1 = 0.9
adam_beta2 = 0.999
adam_epsilon = 1e-8
weight_decay = 0.0
max_grad_norm = 1.0
selection = "best"
save_steps = 0
[evaluation]
eval_batch_size = 10
metric_batch_size = 10
[recipe.plain]
[recipe.tuned.training]
weight_decay = 0.1
[recipe.tuned.override.vanilla]
"training.warmup_ratio" = 0.1
[grid]
seeds = [1, 2]
recipes = ["plain", "tuned"]
cells = [
    { method = "vanilla" },
    { method = "vanilla", set = { "data.train_size" = 50 } },
]
[trials]
recipe = "tuned"
seed = 9
set = { "data.train_size" = 50 }
[trials.candidates]
vanilla = [{ "training.learning_rate" = 2e-3 }, { "training.learning_rate" = 4e-3 }]
"#;

const DATASETS: &str = r#"
[toy]
title = "Toy"
licence = "CC0-1.0"
id_column = "id"
text_column = "document"
label_column = "label"
labels = ["0", "1"]
label_names = ["negative", "positive"]
delimiter = "\t"
quoting = false
[toy.train]
name = "train.txt"
url = ""
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
bytes = 1
rows = 400
class_counts = [200, 200]
[toy.test]
name = "test.txt"
url = ""
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
bytes = 1
rows = 60
class_counts = [30, 30]
"#;

/// `nsmc train --config FILE --out DIR --progress-json --device cpu --stop-with-stdin`: notes that it
/// was started, and on which device, and does what the file `records/ID` says. It measures a run
/// again unless the file `measures/ID` says that this fails, or waits to be stopped.
const PROGRAM: &str = r#"#!/bin/sh
root='ROOT'
if [ "$1 $2 $3 $5" = "bench run --run --record" ]; then
    id=$(basename "$4")
    echo "$id" >> "$root/measured"
    case "$(cat "$root/measures/$id" 2>/dev/null)" in
    fails)
        echo "error: out of memory" >&2
        exit 1
        ;;
    waits)
        echo "$id" >> "$root/waiting"
        # Ten seconds: a test that has failed does not stop it.
        turns=0
        while [ $turns -lt 500 ]; do sleep 0.02; turns=$((turns + 1)); done
        echo "$id" >> "$root/unstopped"
        exit 1
        ;;
    esac
    sed 's/"test_seconds"/"epoch_seconds_alone": 1.5, &/' "$4/record.json" > "$4/timed"
    mv "$4/timed" "$4/record.json"
    echo "{\"epoch_s\": 1.5}"
    exit
fi
id=$(basename "$5")
out=$5
mkdir -p "$out"
cp "$3" "$out/config.toml"
echo "$id" >> "$root/started"
shift 5
echo "$*" >> "$root/arguments"
echo '{"event":"progress","label":"epoch 1/2","done":10,"total":90,"loss":0.5}' >&2
if [ -e "$root/wait" ]; then
    trap 'echo "$id" >> "$root/signalled"; echo "error: interrupted" >&2; exit 1' TERM
    echo "$id" >> "$root/waiting"
    # A minute: a test that has failed does not stop it.
    turns=0
    while [ $turns -lt 1200 ]; do sleep 0.05; turns=$((turns + 1)); done
    exit 1
fi
if [ ! -e "$root/records/$id.json" ]; then
    echo "a warning" >&2
    echo "error: run $id: it broke" >&2
    echo "  on its second line" >&2
    exit 1
fi
cp "$root/records/predictions.tsv" "$out/"
cp "$root/records/$id.json" "$out/record.json"
"#;

pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) workspace: Workspace,
    pub(crate) options: Options,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path());
        // Not as clap makes them: that reads `NSMC_MIRROR`.
        let options = Options {
            profile: None,
            set: Vec::new(),
            device: DeviceChoice::Cpu,
            runs: "runs".into(),
            source: Source::NETWORK,
        };
        let world = Self { folder, workspace, options };
        world.write("configs/toy.toml", PROFILE);
        world.write("configs/methods/vanilla.toml", "[method]\nname = \"vanilla\"\n");
        world.write("configs/methods/majority.toml", "[method]\nname = \"majority\"\n");
        world.write("datasets/manifest.toml", DATASETS);
        world.write("models/manifest.toml", "[models]\n[adapters]\n");
        world.write_program("nsmc", &world.program());
        world
    }

    /// The text of the runs' program, which knows where the world lies.
    pub(crate) fn program(&self) -> String {
        PROGRAM.replace("ROOT", &self.folder.path().display().to_string())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    /// Writes a script without ever having it open in this process: a test beside this one that
    /// starts a process meanwhile would hand it on, and the script could not be started ("text file
    /// busy").
    pub(crate) fn write_program(&self, name: &str, text: &str) {
        let mut shell = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod +x \"$0\""])
            .arg(self.path(name))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut shell.stdin.take().unwrap(), text.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
    }

    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = fs_err::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn plan(&self) -> Plan {
        let profile = self.workspace.profile("toy").unwrap();
        Plan::make(&self.workspace, &profile, &profile.seeds, &self.options).unwrap()
    }

    /// Puts the record ready that a run will leave.
    pub(crate) fn succeeds(&self, config: &ExperimentConfig, accuracies: [f64; 2]) {
        self.write("records/predictions.tsv", &predictions());
        let path = self.path(&format!("records/{}.json", config.run_id()));
        record(config, accuracies).write(&path).unwrap();
    }

    /// Leaves a run that is done.
    pub(crate) fn leaves(&self, config: &ExperimentConfig) {
        self.leaves_with(config, [0.5, 0.5]);
    }

    /// The same with these accuracies of its epochs.
    pub(crate) fn leaves_with(&self, config: &ExperimentConfig, accuracies: [f64; 2]) {
        let folder = format!("runs/{}", config.run_id());
        self.write(&format!("{folder}/config.toml"), &config.to_toml());
        self.write(&format!("{folder}/predictions.tsv"), &predictions());
        record(config, accuracies).write(&self.path(&format!("{folder}/record.json"))).unwrap();
    }

    fn run(&self, plan: &mut Plan, jobs: usize, stop: &Stop) -> Outcome {
        self.run_on(plan, jobs, &[], stop)
    }

    fn run_on(&self, plan: &mut Plan, jobs: usize, gpus: &[u16], stop: &Stop) -> Outcome {
        let starting = Starting {
            workspace: &self.workspace,
            options: &self.options,
            nsmc: &Nsmc::built(self.path("nsmc"), !gpus.is_empty()),
            jobs,
            gpus,
            threads: Some(1),
            stop: stop.clone(),
            patience: Duration::from_millis(300),
        };
        let seconds = vec![Some(1.0); plan.jobs.len()];
        run(plan, &starting, &seconds, BTreeMap::new())
    }
}

/// What each run said of the test reviews.
fn predictions() -> String {
    let rows = (0..60_usize).map(|id| Prediction {
        id: id.to_string(),
        label: id % 2,
        in_training: false,
        logits: vec![(id % 3) as f32, 0.5],
    });
    let mut bytes = Vec::new();
    Predictions { num_labels: 2, rows: rows.collect() }.write(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The record of a run of two epochs with these validation accuracies; the second is tested.
fn record(config: &ExperimentConfig, accuracies: [f64; 2]) -> RunRecord {
    let epoch = |(index, accuracy): (usize, &f64)| EpochRecord {
        epoch: index + 1,
        steps: 9,
        train_seconds: 3.0 + index as f64,
        tokens: 900,
        train_loss: 0.5,
        validation_loss: Some(0.5),
        validation_accuracy: Some(*accuracy),
    };
    let results = RunResults {
        trainable_parameters: 1,
        total_parameters: 1,
        train_reviews: 90,
        validation_reviews: 40,
        test_reviews: 60,
        truncated_reviews: 0,
        adapter_stage: None,
        steps: 18,
        epochs: accuracies.iter().enumerate().map(epoch).collect(),
        epoch_seconds_alone: None,
        tested_epoch: 2,
        test_seconds: 0.6,
        peak_memory_mib: None,
        predictions_sha256: sha256_hex(predictions().as_bytes()),
    };
    RunRecord {
        run_id: config.run_id(),
        identity: config.identity(),
        status: RunStatus::Success,
        started: 0,
        total_seconds: 9.0,
        stretches: Vec::new(),
        provenance: None,
        device: "CPU, 2 threads (burn-flex)".into(),
        threads: 2,
        version: String::new(),
        results: Some(results),
        config: config.clone(),
    }
}

/// What a job is, in words.
fn told(plan: &Plan, job: usize) -> (String, String, u64, f64) {
    let config = &plan.jobs[job].run.config;
    let training = &config.training;
    (config.recipe.clone(), config.data.train_size.to_string(), config.seed, training.learning_rate)
}

#[test]
fn a_plan_has_trials_before_the_cells_that_wait_for_them_and_whole_tables_first() {
    let world = World::new();
    let plan = world.plan();
    let found: Vec<(String, String, u64, usize)> = plan
        .jobs
        .iter()
        .enumerate()
        .map(|(job, it)| {
            let (recipe, size, seed, _) = told(&plan, job);
            (recipe, size, seed, it.waits_for.len())
        })
        .collect();
    let expected = [
        ("plain", "100", 1, 0),
        ("plain", "50", 1, 0),
        ("tuned, trial", "50", 9, 0),
        ("tuned, trial", "50", 9, 0),
        ("tuned", "100", 1, 2),
        ("tuned", "50", 1, 2),
        ("plain", "100", 2, 0),
        ("plain", "50", 2, 0),
        ("tuned", "100", 2, 2),
        ("tuned", "50", 2, 2),
    ];
    let expected: Vec<_> = expected
        .map(|(recipe, size, seed, waits)| (recipe.to_owned(), size.to_owned(), seed, waits))
        .into();
    assert_eq!(found, expected);
    assert_eq!(plan.jobs[4].waits_for, [2, 3]);
    assert_eq!(plan.jobs[4].state(), State::Waits);
    // Tables have a cell's seeds together, and no trials.
    assert_eq!(rows(&plan), [0, 6, 1, 7, 4, 8, 5, 9]);
}

#[test]
fn trials_that_nothing_can_choose_among_are_refused_before_any_is_run() {
    let world = World::new();
    let refused = |set: &[&str]| {
        let set = set.iter().map(|&one| one.to_owned()).collect();
        let options = Options { set, ..world.options.clone() };
        let profile = world.workspace.profile("toy").unwrap();
        let plan = Plan::make(&world.workspace, &profile, &profile.seeds, &options);
        plan.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let last = "training.selection=\"last\"";
    let told = refused(&["data.validation_fraction=0", last]);
    let expected = "`data.validation_fraction`: expected a share that holds out at least one review, \
                    found 0, which is none of the 400 rows of";
    assert!(told.contains(expected), "{told}");
    let expected = "`[trials]` of the profile `toy` choose by validation accuracy; raise it, or leave \
                    `[trials]` out of the profile";
    assert!(told.contains(expected), "{told}");
    // Less than half a review.
    let told = refused(&["data.validation_fraction=0.001"]);
    assert!(told.contains("found 0.001, which is none of the 400 rows of"), "{told}");
    assert_eq!(refused(&["data.validation_fraction=0.01"]), "");
    // All candidates are what is set.
    let told = refused(&["training.learning_rate=1e-4"]);
    assert!(told.contains("is the same run: a `--set` of what trials choose"), "{told}");
    // Nothing is chosen where there are no trials.
    let toy = fs_err::read_to_string(world.path("configs/toy.toml")).unwrap();
    world.write("configs/toy.toml", toy.split("[trials]").next().unwrap());
    assert_eq!(refused(&["data.validation_fraction=0", last]), "");
    assert_eq!(refused(&["training.learning_rate=1e-4"]), "");
}

#[test]
fn a_baseline_is_run_once_for_each_choice_of_data_and_stands_last_in_the_tables() {
    let world = World::new();
    let profile = PROFILE.replace("[grid]\n", "[grid]\nbaselines = [\"majority\"]\n");
    world.write("configs/toy.toml", &profile);
    let plan = world.plan();
    assert_eq!(plan.jobs.len(), 12, "ten runs, and two sizes for all recipes and seeds");
    let ids: Vec<String> = plan.jobs[..2].iter().map(|job| job.run.config.run_id()).collect();
    assert!(ids[0].starts_with("majority-100-") && ids[1].starts_with("majority-50-"), "{ids:?}");
    assert_eq!(rows(&plan), [2, 8, 3, 9, 6, 10, 7, 11, 0, 1]);
    assert!(plan.jobs[0].run.needs() == ["toy"], "it reads no model");
}

fn rows(plan: &Plan) -> Vec<usize> {
    plan.rows().into_iter().map(|(job, _)| job).collect()
}

#[test]
fn a_run_that_two_recipes_mean_is_made_once_and_is_a_row_of_both() {
    let world = World::new();
    // The second recipe says what the first has.
    let profile = PROFILE
        .split("[trials]")
        .next()
        .unwrap()
        .replace("[recipe.tuned.training]\nweight_decay = 0.1\n", "")
        .replace("\"training.warmup_ratio\" = 0.1", "\"training.warmup_ratio\" = 0.0");
    world.write("configs/toy.toml", &profile);
    let plan = world.plan();
    assert_eq!(plan.jobs.len(), 4, "{:?}", plan.rows());
    let shown = [(0, "plain"), (2, "plain"), (1, "plain"), (3, "plain")];
    let tuned = shown.map(|(job, _)| (job, "tuned"));
    assert_eq!(plan.rows(), [shown, tuned].concat());
}

#[test]
fn cells_take_the_trial_with_the_highest_accuracy_of_its_tested_epoch_and_a_second_plan_is_done() {
    let world = World::new();
    let mut plan = world.plan();
    // The first's best accuracy is higher, but in an epoch that was not taken.
    let accuracies = [[0.9, 0.6], [0.5, 0.7]];
    for (job, accuracies) in [2, 3].into_iter().zip(accuracies) {
        world.succeeds(&plan.jobs[job].run.config, accuracies);
    }
    let trials = plan.profile.trials.clone().unwrap();
    for job in [0, 1, 4, 5, 6, 7, 8, 9] {
        let cell = match plan.jobs[job].waits_for.is_empty() {
            true => plan.jobs[job].cell.clone(),
            false => plan.jobs[job].cell.taking(&trials, 1),
        };
        let (workspace, seed) = (&world.workspace, plan.jobs[job].run.config.seed);
        let run = Run::resolve(workspace, &plan.profile, &cell, seed, &world.options).unwrap();
        world.succeeds(&run.config, [0.5, 0.5]);
    }
    let outcome = world.run(&mut plan, 2, &Stop::default());
    assert_eq!((outcome.failures, outcome.stopped), (Vec::<String>::new(), false));
    assert_eq!(plan.done(), 10);
    assert_eq!(
        plan.choices,
        [
            "vanilla takes training.learning_rate = 0.004: validation accuracy 0.7000, the highest of \
          2 trials"
        ]
    );
    assert_eq!(told(&plan, 8), ("tuned".into(), "100".into(), 2, 4e-3));
    assert_eq!(told(&plan, 6), ("plain".into(), "100".into(), 2, 1e-3));
    assert_eq!(world.lines("started").len(), 10);

    let again = world.plan();
    assert!(!again.is_open());
    assert_eq!(again.choices, plan.choices);
    assert!(again.jobs.iter().all(|job| job.state() == State::Done));
}

#[test]
fn an_edit_while_a_grid_is_at_work_changes_nothing_of_it() {
    let world = World::new();
    // What is there need not be fetched.
    let manifest = DATASETS.replace(&"0".repeat(64), &sha256_hex(b""));
    world.write("datasets/manifest.toml", &manifest);
    for name in ["train.txt", "test.txt"] {
        world.write(&format!("datasets/toy/{name}"), "");
    }
    let mut plan = world.plan();
    for (trial, accuracy) in [(2, 0.6), (3, 0.7)] {
        let config = &plan.jobs[trial].run.config;
        world.succeeds(config, [0.5, accuracy]);
        world.leaves_with(config, [0.5, accuracy]);
    }
    let mut expected = Vec::new();
    for (job, it) in world.plan().jobs.iter().enumerate() {
        expected.push(it.run.config.run_id());
        if ![2, 3].contains(&job) {
            world.succeeds(&it.run.config, [0.5, 0.5]);
        }
    }
    fs_err::remove_dir_all(world.path("runs")).unwrap();

    world.write("configs/methods/vanilla.toml", "name");
    assert_eq!(plan.fetch(&world.workspace, &world.options), BTreeMap::new());
    for file in ["configs/toy.toml", "datasets/manifest.toml", "models/manifest.toml"] {
        world.write(file, "[grid");
    }
    let outcome = world.run(&mut plan, 1, &Stop::default());
    assert_eq!((outcome.failures, outcome.stopped), (Vec::<String>::new(), false));
    let found: Vec<String> = plan.jobs.iter().map(|job| job.run.config.run_id()).collect();
    assert_eq!((&found, plan.done()), (&expected, 10));
    expected.sort();
    let mut started = world.lines("started");
    started.sort();
    assert_eq!(started, expected);
}

#[test]
fn a_run_that_fails_stops_only_those_that_wait_for_it() {
    let world = World::new();
    let mut plan = world.plan();
    // Of the trials, the second fails; of the others, all but the first cell.
    for job in [0, 2] {
        world.succeeds(&plan.jobs[job].run.config, [0.5, 0.5]);
    }
    let ids: Vec<String> = plan.jobs.iter().map(|job| job.run.config.run_id()).collect();
    let outcome = world.run(&mut plan, 1, &Stop::default());
    assert!(!outcome.stopped);
    let mut started = ids.clone();
    for waiting in [9, 8, 5, 4] {
        started.remove(waiting);
    }
    assert_eq!(world.lines("started"), started, "in the plan's order, without those that wait");
    let failures = outcome.failures;
    assert_eq!(failures.len(), 8);
    let broke = format!("{}: run {}: it broke\n  on its second line", ids[1], ids[1]);
    assert_eq!(failures[0], broke);
    let waits = format!("{}: not started, for its trial {} failed", ids[4], ids[3]);
    assert!(failures.contains(&waits), "{failures:?}");
    assert_eq!(plan.done(), 2);
    assert_eq!(plan.jobs[1].state(), State::Stopped, "it goes on when it is started again");
}

/// A grid that is asked to stop when so many of its runs wait.
pub(crate) fn stopped_when_waiting<T>(
    world: &World,
    runs: usize,
    stop: &Stop,
    grid: impl FnOnce() -> T,
) -> T {
    stopped_and_then(world, runs, stop, || (), grid)
}

/// The same; `then` comes right after.
fn stopped_and_then<T>(
    world: &World,
    runs: usize,
    stop: &Stop,
    then: impl FnOnce() + Send,
    grid: impl FnOnce() -> T,
) -> T {
    let waiting = world.path("waiting");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let count = || fs_err::read_to_string(&waiting).map_or(0, |text| text.lines().count());
            let deadline = Instant::now() + Duration::from_secs(30);
            while count() < runs && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            // After the deadline, too: the grid would wait for its runs.
            stop.ask();
            then();
        });
        grid()
    })
}

#[test]
fn a_signal_reaches_each_run_at_work_once_and_starts_no_more() {
    let world = World::new();
    world.write("wait", "");
    let mut plan = world.plan();
    let stop = Stop::default();
    let outcome = stopped_when_waiting(&world, 2, &stop, || world.run(&mut plan, 2, &stop));
    assert!(outcome.stopped && outcome.failures.is_empty(), "{outcome:?}");
    let (mut started, mut signalled) = (world.lines("started"), world.lines("signalled"));
    started.sort();
    signalled.sort();
    assert_eq!((started.len(), &started), (2, &signalled));
    assert_eq!(plan.jobs[0].state(), State::Stopped);
}

/// A run that has no handler of signals yet says nothing when one ends it, and another process may have
/// sent it, before the grid has passed it on.
#[test]
fn a_run_that_a_signal_ends_before_it_is_passed_on_did_not_fail() {
    let world = World::new();
    let program = "#!/bin/sh\nroot='ROOT'\nmkdir -p \"$5\"\ncp \"$3\" \"$5/config.toml\"\n\
                   echo >> \"$root/waiting\"\nturns=0\n\
                   while [ ! -e \"$root/end\" ] && [ $turns -lt 3000 ]; do\n\
                   sleep 0.01; turns=$((turns + 1)); done\nkill $$\n";
    world.write_program("nsmc", &program.replace("ROOT", &world.path("").display().to_string()));
    for _ in 0..5 {
        let (mut plan, stop) = (world.plan(), Stop::default());
        let end = world.path("end");
        let ended = || fs_err::write(&end, "").unwrap();
        let grid = || world.run(&mut plan, 2, &stop);
        let outcome = stopped_and_then(&world, 2, &stop, ended, grid);
        assert!(outcome.stopped && outcome.failures.is_empty(), "{outcome:?}");
        for file in ["waiting", "end"] {
            fs_err::remove_file(world.path(file)).unwrap();
        }
    }
}

/// The program of a world, in which the configuration that a run was started with cannot be removed
/// any more: a folder is in its place.
fn with_a_folder_in_the_way(world: &World, id: &str) -> String {
    let copied = "cp \"$3\" \"$out/config.toml\"\n";
    let program = world.program();
    assert!(program.contains(copied));
    let in_the_way = format!("[ \"$id\" != '{id}' ] || {{ rm \"$3\"; mkdir \"$3\"; }}\n");
    program.replace(copied, &format!("{copied}{in_the_way}"))
}

#[test]
fn what_cannot_be_removed_of_one_run_ends_no_other() {
    let world = World::new();
    let mut plan = without_waiting(&world);
    let id = plan.jobs[0].run.config.run_id();
    world.write_program("nsmc", &with_a_folder_in_the_way(&world, &id));
    let outcome = world.run(&mut plan, 1, &Stop::default());
    let [failure] = outcome.failures.as_slice() else { panic!("{outcome:?}") };
    assert!(failure.starts_with(&format!("{id}: ")) && failure.contains(".toml"), "{failure}");
    assert_eq!((world.lines("started").len(), outcome.stopped), (6, false));
}

#[test]
fn why_a_run_failed_goes_before_what_cannot_be_removed_of_it() {
    let world = World::new();
    let run = &world.plan().jobs[0].run;
    let id = run.config.run_id();
    // What it says is not for the tests' own output.
    let program = with_a_folder_in_the_way(&world, &id).replacen('\n', "\nexec 2>/dev/null\n", 1);
    world.write_program("nsmc", &program);
    let nsmc = Nsmc::at(world.path("nsmc"));
    let error = run.start(&world.workspace, &nsmc, false, false, &Stop::default()).unwrap_err();
    let said = format!("{error:#}");
    assert!(said.starts_with(&format!("run {id}: the run ended with exit status: 1")), "{said}");
    assert!(run.started_with().is_dir(), "it was in the way");
}

/// The plan's runs without the cells that wait for trials, each with a record ready for it.
pub(crate) fn without_waiting(world: &World) -> Plan {
    let mut plan = world.plan();
    plan.jobs.retain(|job| job.waits_for.is_empty());
    for job in &plan.jobs {
        world.succeeds(&job.run.config, [0.5, 0.5]);
    }
    plan
}

#[test]
fn runs_are_spread_over_the_gpus_and_each_knows_its_own() {
    let world = World::new();
    let mut plan = without_waiting(&world);
    let outcome = world.run_on(&mut plan, 1, &[3, 5], &Stop::default());
    assert_eq!((outcome.failures, outcome.stopped), (Vec::<String>::new(), false));
    let arguments = world.lines("arguments");
    let on = |gpu: &str| {
        let device = format!("--progress-json --device {gpu} --stop-with-stdin");
        arguments.iter().filter(|&line| *line == device).count()
    };
    assert_eq!(on("cuda:3") + on("cuda:5"), 6, "{arguments:?}");
    assert!(on("cuda:3") > 0 && on("cuda:5") > 0, "{arguments:?}");
    // The device is no part of a run's identity.
    assert_eq!(world.plan().done(), 6);
}

#[test]
fn as_many_runs_as_asked_for_are_at_work_on_each_gpu() {
    let world = World::new();
    world.write("wait", "");
    let mut plan = without_waiting(&world);
    let stop = Stop::default();
    let outcome =
        stopped_when_waiting(&world, 4, &stop, || world.run_on(&mut plan, 2, &[0, 1], &stop));
    assert!(outcome.stopped, "{outcome:?}");
    let mut devices: Vec<String> = world.lines("arguments");
    devices.sort();
    let device = |gpu| format!("--progress-json --device cuda:{gpu} --stop-with-stdin");
    assert_eq!(devices, [device(0), device(0), device(1), device(1)]);
}

#[test]
fn of_an_older_run_no_half_is_left_to_go_on_from() {
    let world = World::new();
    let run = &world.plan().jobs[0].run;
    let id = run.config.run_id();
    // A run that is done, and what an xtask that was killed left of another.
    world.write(&format!("runs/{id}/config.toml"), &run.config.to_toml());
    record(&run.config, [0.5, 0.5]).write(&world.path(&format!("runs/{id}/record.json"))).unwrap();
    let aside = format!("runs/.removed-{id}");
    world.write(&format!("{aside}/{id}/resume/step"), "");
    // What is being removed of another run at the same time is that one's matter.
    let others = format!("runs/.removed-{}/resume/step", world.plan().jobs[1].run.config.run_id());
    world.write(&others, "");
    let done = run.prepare(false).unwrap();
    assert!(matches!(done, Attempt::Made(None)) && run.is_done());
    let Attempt::Made(Some(prepared)) = run.prepare(true).unwrap() else { panic!() };
    assert!(!run.folder.exists() && !world.path(&aside).exists() && world.path(&others).exists());
    prepared.close().unwrap();
}

/// `nsmc` mends a configuration that is damaged or missing, or refuses the directory
/// (docs/reliability.md): xtask is to keep it for that.
#[test]
fn a_stopped_run_whose_configuration_is_lost_is_gone_on_with() {
    let world = World::new();
    let mut plan = world.plan();
    let ids: Vec<String> = plan.jobs.iter().map(|job| job.run.config.run_id()).collect();
    let file = |job: usize, name: &str| format!("runs/{}/{name}", ids[job]);
    let other = plan.jobs[9].run.config.to_toml();
    // Cut off, not text, not there, not readable; another run's, a whole one.
    world.write(&file(0, "config.toml"), "seed = 1\n[model");
    world.write(&file(1, "config.toml"), "");
    world.write(&file(6, "config.toml/x"), "");
    world.write(&file(7, "config.toml"), &other);
    for job in [0, 1, 2, 6, 7] {
        world.write(&file(job, "resume/step-2/weights"), &ids[job]);
    }
    // Killed before there was anything to go on with.
    world.write(&file(3, ".lock"), "1\n");
    let states = [0, 1, 2, 6, 7, 3].map(|job| plan.jobs[job].state());
    assert_eq!(states[..4], [State::Stopped; 4]);
    assert_eq!(states[4..], [State::New; 2]);

    let kept = |job: usize| world.path(&file(job, "resume/step-2/weights")).exists();
    for again in [false, true] {
        let Attempt::Made(Some(prepared)) = plan.jobs[6].run.prepare(again).unwrap() else {
            panic!("it is not done")
        };
        prepared.close().unwrap();
        assert!(kept(6), "again: {again}");
    }
    for job in [0, 1, 2, 3, 7] {
        world.succeeds(&plan.jobs[job].run.config, [0.5, 0.5]);
    }
    world.run(&mut plan, 1, &Stop::default());
    assert_eq!([0, 1, 2, 7].map(kept), [true, true, true, false]);
    assert!([0, 1, 2, 3, 7].iter().all(|&job| plan.jobs[job].state() == State::Done));
}

#[test]
fn a_run_that_somebody_else_started_is_waited_for_for_a_while_and_named() {
    let world = World::new();
    let mut plan = world.plan();
    for job in [0, 1, 2, 6, 7] {
        world.succeeds(&plan.jobs[job].run.config, [0.5, 0.5]);
    }
    // A trial, and one that nothing waits for.
    let lock = |job: usize| {
        let folder: &Path = &plan.jobs[job].run.folder;
        fs_err::create_dir_all(folder).unwrap();
        FileLock::try_acquire(&folder.join(".lock")).unwrap().unwrap()
    };
    let (trial, cell) = (lock(3), lock(0));
    let (trial_id, cell_id) = (plan.jobs[3].shown_id(), plan.jobs[0].shown_id());
    let outcome = std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(cell);
        });
        world.run(&mut plan, 1, &Stop::default())
    });
    drop(trial);
    let pid = std::process::id();
    let failures = outcome.failures;
    assert_eq!(failures.len(), 5, "{failures:?}");
    let named = format!(
        "{trial_id}: process {pid} is at work on it and does not end; wait for it or stop it (`kill \
         {pid}`), then the same command goes on"
    );
    assert!(failures.contains(&named), "{failures:?}");
    let waits = |failure: &&String| {
        failure.ends_with(&format!("not started, for its trial {trial_id} failed"))
    };
    assert_eq!(failures.iter().filter(waits).count(), 4, "{failures:?}");
    assert!(world.lines("started").contains(&cell_id), "it was free in time");
    assert_eq!(plan.done(), 5);
}

#[test]
fn runs_that_shared_the_machine_are_timed_again_once() {
    let world = World::new();
    let plan = world.plan();
    for (job, threads) in [(0, 1), (1, 2), (2, 1)] {
        let config = &plan.jobs[job].run.config;
        let path = plan.jobs[job].run.folder.join("record.json");
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        RunRecord { threads, ..record(config, [0.5, 0.5]) }.write(&path).unwrap();
    }
    // Of this grid, but made on a GPU, and on two.
    for (job, device) in [
        (6, "CUDA GPU 0, NVIDIA H100 (burn-cuda)"),
        (7, "CUDA GPU 0 (burn-cuda) + CUDA GPU 1 (burn-cuda)"),
    ] {
        let run = &plan.jobs[job].run;
        fs_err::create_dir_all(&run.folder).unwrap();
        let record = record(&run.config, [0.5, 0.5]);
        let record = RunRecord { device: device.into(), threads: 1, ..record };
        record.write(&run.folder.join("record.json")).unwrap();
    }
    assert_eq!(to_time(&plan, 1, true), [6]);
    // The second had the machine to itself, the third is a trial, the others are not done.
    let shared = to_time(&plan, 1, false);
    assert_eq!(shared, [0]);
    let nsmc = Nsmc::at(world.path("nsmc"));
    let timed = time(&world.workspace, &nsmc, &plan, &shared, &Stop::default());
    assert_eq!(timed, Timed { runs: 1, measured: 1, ..Timed::default() });
    let seconds = |job: usize| {
        let path = plan.jobs[job].run.folder.join("record.json");
        RunRecord::read(&path).unwrap().results.unwrap().epoch_seconds().unwrap()
    };
    assert_eq!([seconds(0), seconds(1)].map(f64::to_bits), [1.5f64, 3.5].map(f64::to_bits));
    assert!(to_time(&plan, 1, false).is_empty());
}

#[test]
fn an_estimate_is_what_earlier_runs_took_by_reviews_and_threads() {
    let world = World::new();
    let plan = world.plan();
    let config = &plan.jobs[0].run.config;
    let speeds = |cuda| {
        Speeds::read(&world.path("runs"), world.workspace.datasets().unwrap(), cuda).unwrap()
    };
    let guess = speeds(false).estimate(config, 2).unwrap();
    assert_eq!(guess.measured, 0);

    world.write("runs/one/x", "");
    record(config, [0.5, 0.5]).write(&world.path("runs/one/record.json")).unwrap();
    let measured = speeds(false).estimate(config, 2).unwrap();
    assert_eq!(measured.measured, 1);
    // Two epochs of 90 reviews at 3.5 s (the median of both), and 60 tested and 2 · 40 validated reviews
    // at 0.01 s; 40 are held out of 400. Five seconds for the rest.
    assert!((measured.seconds - (7.0 + 1.4 + 5.0)).abs() < 1e-9, "{measured:?}");
    let one_thread = speeds(false).estimate(config, 1).unwrap();
    assert!((one_thread.seconds - (14.0 + 2.8 + 5.0)).abs() < 1e-9, "{one_thread:?}");
    assert_eq!(speeds(true).estimate(config, 2).unwrap().measured, 0, "a GPU is another machine");

    // One's own data stand in no manifest, and need not be counted beforehand.
    let mut own = config.clone();
    own.data.dataset = "mine".into();
    own.data.train_size = Rows::All;
    own.data.train.class_counts = Vec::new();
    own.data.train.path = world.path("mine.tsv");
    assert_eq!(speeds(false).estimate(&own, 2), None, "it is not there");
    world.write("mine.tsv", &format!("id\tdocument\tlabel\n{}", "1\tgood\t1\n".repeat(400)));
    let of_400 = speeds(false).estimate(&own, 2).unwrap();
    let with_400 = speeds(false);
    assert_eq!(Some(of_400), with_400.estimate(&own, 2));
    // In whatever encoding; once for all runs.
    let korean = b"1\t\xc1\xc1\xb4\xd9\t1\n".repeat(400);
    fs_err::write(world.path("mine.tsv"), [&b"id\tdocument\tlabel\n"[..], &korean].concat())
        .unwrap();
    assert_eq!(Some(of_400), speeds(false).estimate(&own, 2));
    world.write("mine.tsv", "id\tdocument\tlabel\n");
    assert_eq!(Some(of_400), with_400.estimate(&own, 2));
    own.data.train_size = Rows::Exactly(400);
    assert_eq!(Some(of_400), with_400.estimate(&own, 2));
}

#[test]
fn a_run_that_is_killed_did_not_end_with_what_it_said_hours_before() {
    let killed = "signal: 9 (SIGKILL)";
    let warned = "WARN damaged or missing: its checkpoint is passed over";
    assert_eq!(
        why_it_ended(Some(warned), killed),
        format!("the run ended with {killed}; its last words: {warned}")
    );
    assert_eq!(why_it_ended(None, killed), "the run ended with signal: 9 (SIGKILL)");
    assert_eq!(why_it_ended(Some("error: out of memory"), "exit status: 1"), "out of memory");
}
