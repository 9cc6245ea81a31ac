//! Runs of every method, killed at any moment.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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

/// Kills a run at random moments until it has been killed `kills` times while at work, each time
/// within what a whole run takes; one that came to its end is begun anew. Gives how often it came to
/// its end, and how often it went on from a checkpoint.
fn campaign(
    kills: usize,
    seed: &mut u64,
    whole: Duration,
    mut start: impl FnMut() -> Child,
    mut ended: impl FnMut(),
) -> usize {
    let (mut done, mut ends) = (0, 0);
    while done < kills {
        // Knuth's MMIX generator: any will do that repeats itself.
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = (*seed >> 40) as f64 / (1_u64 << 24) as f64;
        let mut process = start();
        std::thread::sleep(whole.mul_f64(share));
        if process.try_wait().unwrap().is_none() {
            process.kill().unwrap();
            process.wait().unwrap();
            done += 1;
        } else {
            ended();
            ends += 1;
        }
    }
    ends
}

/// `NSMC_KILLS` random kills of each method and of a pre-training, 25 without it; `NSMC_KILL_SEED`
/// gives other moments.
#[test]
#[ignore = "minutes: cargo test -p nsmc-cli --test e2e campaign -- --ignored --nocapture"]
fn a_campaign_of_random_kills_changes_no_result() {
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let kills = number("NSMC_KILLS", 25) as usize;
    let mut seed = number("NSMC_KILL_SEED", 1);
    let world = World::new();
    let adapter = world.train(&world.config_with(ADAPTER), "ko");
    assert!(adapter.success, "{}", adapter.stderr);
    let export = world.nsmc(&["export", "--run", "ko", "--format", "adapterhub", "--out", "hub"]);
    assert!(export.success, "{}", export.stderr);
    let fusion = fusion(&world, "hub/nsmc");
    let quiet = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let vanilla = "[method]\nname = \"vanilla\"\n";
    for (name, method) in
        [("vanilla", vanilla), ("lora", LORA), ("adapter", ADAPTER), ("adapterfusion", &fusion)]
    {
        let config = world.config_with(method).replace("save_steps = 0", "save_steps = 2");
        let (whole, killed) = (format!("{name}-whole"), format!("{name}-killed"));
        let started = Instant::now();
        assert!(world.train(&config, &whole).success);
        let time = started.elapsed();
        let check = || {
            assert_eq!(results(&world, &killed), results(&world, &whole), "{name}");
            let predictions = |run: &str| world.read(format!("{run}/predictions.tsv"));
            assert_eq!(predictions(&killed), predictions(&whole), "{name}");
            let ran = world.nsmc(&["verify", &killed]);
            assert!(ran.success, "{}{}", ran.stdout, ran.stderr);
        };
        let arguments = ["train", "--config", "config.toml", "--out", &killed, "--device", "cpu"];
        let mut resumed = 0;
        let log = world.path(&killed).join("log.txt");
        let count = || {
            let log = fs_err::read_to_string(&log).unwrap_or_default();
            log.matches("gone on from a checkpoint").count()
        };
        let ends = campaign(
            kills,
            &mut seed,
            time,
            || quiet(&arguments),
            || {
                check();
                resumed += count();
                fs_err::remove_dir_all(world.path(&killed)).unwrap();
            },
        );
        if !world.path(&killed).join("record.json").is_file() {
            assert!(world.train(&config, &killed).success);
        }
        check();
        resumed += count();
        eprintln!("{name}: {kills} kills, {resumed} resumptions, {} runs ended equal", ends + 1);
    }

    crate::pretrain::prepare(&world);
    let started = Instant::now();
    assert!(crate::pretrain::start(&world, "pretrained").wait().unwrap().success());
    let time = started.elapsed();
    let ends = campaign(
        kills,
        &mut seed,
        time,
        || crate::pretrain::start(&world, "pretraining"),
        || {
            crate::pretrain::assert_same(&world, "pretraining", "pretrained");
            fs_err::remove_dir_all(world.path("pretraining")).unwrap();
        },
    );
    assert!(crate::pretrain::start(&world, "pretraining").wait().unwrap().success());
    crate::pretrain::assert_same(&world, "pretraining", "pretrained");
    eprintln!("pre-training: {kills} kills, {} trainings ended equal", ends + 1);
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
