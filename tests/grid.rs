//! What a grid asks of the program: that a run ends with the program that started it, and can be
//! told a GPU. `xtask/tests/grid.rs` has whole grids.

use std::io::PipeWriter;
use std::process::Command;

use nsmc_experiment::FileLock;

use crate::pretrain;
use crate::world::{Running, World};

const TRAIN: [&str; 5] = ["train", "--config", "config.toml", "--device", "cpu"];
const PRETRAIN: [&str; 5] = ["pretrain", "--config", "pretraining.toml", "--device", "cpu"];

/// Starts a command whose standard input ends when the writer is dropped, as it does when whoever
/// holds it is killed.
fn tied(mut command: Command) -> (Running, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    command.arg("--stop-with-stdin").stdin(reader);
    (Running::start(command), writer)
}

/// Stops a training that begins in `run` after its first measurement; what it said then.
fn stopped_with_stdin(world: &World, arguments: &[&str], run: &str) -> String {
    let mut command = world.command(arguments);
    command.args(["--out", run]);
    let (mut process, stdin) = tied(command);
    let metrics = world.path(&format!("{run}/metrics.jsonl"));
    process.until("measured", || metrics.is_file());
    drop(stdin);
    let ran = process.end();
    assert!(!ran.success);
    ran.stderr
}

#[test]
fn a_run_writes_a_checkpoint_and_ends_when_its_standard_input_ends() {
    let world = World::new();
    // No checkpoint but those of the epochs, and of the stop.
    let config = world.config().replace("num_train_epochs = 6", "num_train_epochs = 24");
    assert!(world.train(&config, "whole").success);
    let said = stopped_with_stdin(&world, &[&TRAIN[..], &["--progress-json"]].concat(), "stopped");
    assert!(said.contains("interrupted: standard input ended"), "{said}");
    assert!(!said.contains("epoch 24/24"), "it trained to its end: {said}");

    let ran = world.train(&config, "stopped");
    assert!(ran.success, "{}", ran.stderr);
    assert!(world.read("stopped/log.txt").contains("gone on from a checkpoint"));
    let predictions = |run: &str| world.read(format!("{run}/predictions.tsv"));
    assert_eq!(predictions("stopped"), predictions("whole"));
}

#[test]
fn a_pre_training_writes_a_checkpoint_and_ends_when_its_standard_input_ends() {
    let world = World::new();
    pretrain::prepare(&world);
    let whole = world.nsmc(&[&PRETRAIN[..], &["--out", "whole"]].concat());
    assert!(whole.success, "{}", whole.stderr);
    let said = stopped_with_stdin(&world, &PRETRAIN, "stopped");
    assert!(said.contains("interrupted: after step "), "{said}");
    assert!(!world.path("stopped/model").exists());

    let ran = world.nsmc(&[&PRETRAIN[..], &["--out", "stopped"]].concat());
    assert!(ran.success, "{}", ran.stderr);
    assert!(world.read("stopped/log.txt").contains("gone on from a checkpoint"));
    let weights =
        |run: &str| fs_err::read(world.path(&format!("{run}/model/model.safetensors"))).unwrap();
    assert!(weights("stopped") == weights("whole"), "the weights are others");
}

/// `/dev/null`, as where nobody is at the terminal.
#[test]
fn a_standard_input_that_is_empty_stops_what_asked_for_it_and_nothing_else() {
    let world = World::new();
    world.write("config.toml", world.config());
    let arguments = [&TRAIN[..], &["--out", "run"]].concat();
    let stopped = world.nsmc(&[&arguments[..], &["--stop-with-stdin"]].concat());
    assert!(!stopped.success && !world.path("run/predictions.tsv").exists(), "{}", stopped.stderr);
    let ran = world.nsmc(&[&arguments[..], &["--progress-json"]].concat());
    assert!(ran.success, "{}", ran.stderr);

    let record = world.read("run/record.json");
    let bench = ["bench", "run", "--run", "run", "--device", "cpu", "--record", "--steps", "60000"];
    let stopped = world.nsmc(&[&bench[..], &["--stop-with-stdin"]].concat());
    assert!(!stopped.success && stopped.stdout.is_empty(), "{}", stopped.stdout);
    assert_eq!(world.read("run/record.json"), record);
}

#[test]
fn a_grid_knows_the_words_of_a_run_whose_directory_is_taken() {
    let world = World::new();
    world.write("config.toml", world.config());
    fs_err::create_dir(world.path("run")).unwrap();
    let _lock = FileLock::try_acquire(&world.path("run/.lock")).unwrap().unwrap();
    let ran = world.nsmc(&[&TRAIN[..], &["--out", "run"]].concat());
    assert!(!ran.success);
    // `HELD` in `xtask/src/grid/schedule.rs`.
    assert!(ran.stderr.contains("is at work in this run directory"), "{}", ran.stderr);
}

#[test]
fn a_gpu_is_named_by_its_index() {
    let world = World::new();
    world.write("config.toml", world.config());
    let device = |device: &str| {
        let arguments = ["train", "--config", "config.toml", "--out", "run", "--device", device];
        let ran = world.nsmc(&arguments);
        assert!(!ran.success);
        ran.stderr
    };
    let wrong = device("cuda:first");
    assert!(wrong.contains("expected auto, cpu, cuda, or cuda:N"), "{wrong}");
    if !cfg!(feature = "cuda") {
        let without = device("cuda:1");
        assert!(without.contains("was built without CUDA"), "{without}");
    }
}
