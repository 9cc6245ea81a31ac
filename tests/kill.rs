//! Runs of every method, killed at any moment.

use std::process::{Command, Stdio};
use std::time::Duration;

use nsmc_experiment::{RunRecord, RunResults};

use crate::methods::{ADAPTER, LORA, fusion};
use crate::world::World;

/// Starts a run and kills it after a time; whether it was still at work.
fn start_and_kill(world: &World, run: &str, after: Duration) -> bool {
    let mut process = Command::new(env!("CARGO_BIN_EXE_nsmc"))
        .current_dir(world.path(""))
        .env("NSMC_CACHE", world.path("cache"))
        .args(["train", "--config", "config.toml", "--out", run, "--device", "cpu"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    let at_work = process.try_wait().unwrap().is_none();
    process.kill().unwrap();
    process.wait().unwrap();
    at_work
}

/// What a run found, without times and sizes of the process.
fn results(world: &World, run: &str) -> RunResults {
    let mut results =
        RunRecord::read(&world.path(run).join("record.json")).unwrap().results.unwrap();
    results.test_seconds = 0.0;
    results.peak_memory_mib = None;
    let stage = results.adapter_stage.iter_mut().flat_map(|stage| &mut stage.epochs);
    for epoch in stage.chain(&mut results.epochs) {
        epoch.train_seconds = 0.0;
    }
    results
}

#[test]
fn a_run_of_any_method_that_is_killed_again_and_again_ends_with_the_same_numbers() {
    let world = World::new();
    let vanilla = "[method]\nname = \"vanilla\"\n";
    let adapter = world.train(&world.config_with(ADAPTER), "ko");
    assert!(adapter.success, "{}", adapter.stderr);
    let export = world.nsmc(&["export", "--run", "ko", "--format", "adapterhub", "--out", "hub"]);
    assert!(export.success, "{}", export.stderr);
    let fusion = fusion(&world, "hub/nsmc");
    for (name, method) in
        [("vanilla", vanilla), ("lora", LORA), ("adapter", ADAPTER), ("fusion", &fusion)]
    {
        let config = world.config_with(method).replace("save_steps = 0", "save_steps = 2");
        let whole = format!("{name}-whole");
        let ran = world.train(&config, &whole);
        assert!(ran.success, "{}", ran.stderr);
        let killed = format!("{name}-killed");
        let (mut kills, mut gone_on) = (0, 0);
        for kill in 0..10 {
            kills += u32::from(start_and_kill(
                &world,
                &killed,
                Duration::from_millis(30 + 61 * kill % 350),
            ));
            let log = world.path(&killed).join("log.txt");
            let log = fs_err::read_to_string(log).unwrap_or_default();
            gone_on = log.matches("gone on").count();
        }
        assert!(kills > 0, "each of the processes was done before it was killed");
        assert!(gone_on > 0, "none of the processes went on from a checkpoint");
        if !world.path(&killed).join("record.json").is_file() {
            let ran = world.train(&config, &killed);
            assert!(ran.success, "{name}: {}", ran.stderr);
        }
        assert_eq!(results(&world, &killed), results(&world, &whole), "{name}");
        let predictions = |run: &str| world.read(format!("{run}/predictions.tsv"));
        assert_eq!(predictions(&killed), predictions(&whole), "{name}");

        // A run that is done is left alone.
        let ran = world.train(&config, &killed);
        assert!(!ran.success && ran.stderr.contains("it is done"), "{}", ran.stderr);
    }
}
