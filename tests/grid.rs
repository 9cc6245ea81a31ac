//! What a grid asks of the program: that a run ends with the program that started it, and can be
//! told a GPU. `xtask/tests/grid.rs` has whole grids.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nsmc_experiment::FileLock;

use crate::pretrain;
use crate::world::World;

/// Of a process that was asked to end.
const STOPPED: Option<i32> = Some(130);

fn train(world: &World, run: &str, more: &[&str]) -> Command {
    let arguments = ["train", "--config", "config.toml", "--out", run, "--device", "cpu"];
    let mut command = world.command(&arguments);
    command.args(more).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Waits for a process, for a time.
fn end(mut process: Child) -> (ExitStatus, String) {
    let deadline = Instant::now() + Duration::from_mins(1);
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break status;
        }
        if Instant::now() >= deadline {
            process.kill().unwrap();
            panic!("the process does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut said = String::new();
    process.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
    (status, said)
}

#[test]
fn a_run_writes_a_checkpoint_and_ends_when_its_standard_input_ends() {
    let world = World::new();
    let config = world.config().replace("num_train_epochs = 6", "num_train_epochs = 24");
    assert!(world.train(&config, "whole").success);
    let mut process = train(&world, "stopped", &["--progress-json", "--stop-with-stdin"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = process.stdin.take();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap().contains("epoch 2/24")), "it trains");
    // As when whoever held the other end was killed.
    drop(stdin);
    let said: Vec<String> = lines.map_while(Result::ok).collect();
    let (status, _) = end(process);
    assert!(!status.success());
    let last = said.last().unwrap();
    assert!(last.contains("interrupted: standard input ended"), "{last}");
    assert!(!said.iter().any(|line| line.contains("epoch 24/24")), "it trained to its end");

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
    // No checkpoint but that of the stop.
    let config = world.read("pretraining.toml").replace("save_every = 3", "save_every = 60");
    world.write("pretraining.toml", config);
    assert!(pretrain::start(&world, "whole").wait().unwrap().success());
    let arguments = ["pretrain", "--config", "pretraining.toml", "--out", "stopped"];
    let mut process = world
        .command(&arguments)
        .args(["--device", "cpu", "--stop-with-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while !world.path("stopped/metrics.jsonl").is_file() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(process.stdin.take());
    let (status, said) = end(process);
    assert!(!status.success() && said.contains("interrupted: after step "), "{said}");
    assert!(!world.path("stopped/model").exists());
    assert!(pretrain::start(&world, "stopped").wait().unwrap().success());
    assert!(world.read("stopped/log.txt").contains("gone on"), "{}", world.read("stopped/log.txt"));
    pretrain::assert_same(&world, "stopped", "whole");
}

#[test]
fn a_standard_input_that_has_ended_stops_a_run_that_asked_for_it_and_no_other() {
    let world = World::new();
    world.write("config.toml", world.config());
    let started =
        |more: &[&str]| end(train(&world, "run", more).stdin(Stdio::null()).spawn().unwrap());
    let (status, said) = started(&["--stop-with-stdin"]);
    assert!(!status.success() && !world.path("run/record.json").is_file(), "{said}");
    let (status, said) = started(&["--progress-json"]);
    assert!(status.success(), "{said}");

    let record = world.read("run/record.json");
    let bench = ["bench", "run", "--run", "run", "--record", "--steps", "60000"];
    let mut bench = world.command(&bench);
    bench.args(["--device", "cpu", "--stop-with-stdin"]).stdin(Stdio::null());
    let (status, _) = end(bench.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    assert_eq!(status.code(), STOPPED);
    assert_eq!(world.read("run/record.json"), record);
}

#[test]
fn a_grid_knows_the_words_of_a_run_whose_directory_is_taken() {
    let world = World::new();
    world.write("config.toml", world.config());
    fs_err::create_dir(world.path("run")).unwrap();
    let _lock = FileLock::try_acquire(&world.path("run/.lock")).unwrap().unwrap();
    let (status, said) = end(train(&world, "run", &[]).stdin(Stdio::null()).spawn().unwrap());
    assert!(!status.success());
    // `HELD` in `xtask/src/grid/schedule.rs`.
    assert!(said.contains("is at work in this run directory"), "{said}");
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
