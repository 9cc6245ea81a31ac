//! Runs of every method, killed at any moment.

use std::time::{Duration, Instant};

use nsmc_experiment::{RunRecord, RunResults};

use crate::methods::{ADAPTER, LORA, fusion};
use crate::world::{Running, World, newest_step};

/// Processes that work on the same run, one after another, and are killed.
pub(crate) struct Campaign<'a> {
    pub(crate) world: &'a World,
    pub(crate) run: &'a str,
    /// Of the program that works on it.
    pub(crate) arguments: &'a [&'a str],
    /// How long a process takes that is left alone.
    pub(crate) whole: Duration,
    pub(crate) moments: Moments,
}

/// When a process is killed.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Moments {
    /// After a random share of what a whole run takes.
    Random,
    /// The same for every other process, and for those between as soon as there is a new checkpoint:
    /// however slow the machine, the run gets on.
    RandomAndAtCheckpoints,
}

/// How often what happened in a campaign.
pub(crate) struct Happened {
    /// A process went on from a checkpoint.
    pub(crate) resumptions: usize,
    /// The run came to its end.
    pub(crate) ends: usize,
}

impl Campaign<'_> {
    /// Kills until a process has been killed `kills` times while at work and one has gone on from a
    /// checkpoint `resumptions` times. Each run that comes to its end is checked, the last of them
    /// undisturbed, and all but the last are begun anew.
    pub(crate) fn fight(
        &self,
        kills: usize,
        resumptions: usize,
        seed: &mut u64,
        check: impl Fn(),
    ) -> Happened {
        let (mut starts, mut killed) = (0, 0);
        let mut happened = Happened { resumptions: 0, ends: 0 };
        while killed < kills || happened.resumptions + self.resumptions() < resumptions {
            starts += 1;
            assert!(starts <= 10 * kills, "{killed} of {starts} processes could be killed");
            let before = self.checkpoints();
            let mut process = self.world.start(self.arguments);
            if self.moments == Moments::RandomAndAtCheckpoints && starts % 2 == 1 {
                process.reaches("a new checkpoint", || {
                    self.checkpoints().iter().zip(&before).any(|(now, before)| now > before)
                });
            } else {
                std::thread::sleep(self.whole.mul_f64(random_share(seed)));
            }
            if process.kill() {
                killed += 1;
            } else {
                self.assert_ended(process);
                check();
                happened.resumptions += self.resumptions();
                happened.ends += 1;
                fs_err::remove_dir_all(self.world.path(self.run)).unwrap();
            }
        }
        self.assert_ended(self.world.start(self.arguments));
        check();
        happened.resumptions += self.resumptions();
        happened.ends += 1;
        happened
    }

    /// That the run came to its end. A process may have been killed between the two.
    fn assert_ended(&self, process: Running) {
        let ran = process.end();
        let ended = ran.success || ran.stderr.contains("it is done");
        assert!(ended, "{}: {}", self.run, ran.stderr);
    }

    /// The newest checkpoints of a run's first and last stage, and of a pre-training.
    fn checkpoints(&self) -> [Option<usize>; 3] {
        let folder = self.world.path(self.run);
        ["adapter/resume", "resume", "checkpoint"].map(|name| newest_step(&folder.join(name)))
    }

    /// How often a process has gone on from a checkpoint of the run as it is now.
    fn resumptions(&self) -> usize {
        let log = fs_err::read_to_string(self.world.path(self.run).join("log.txt"));
        log.unwrap_or_default().matches("gone on from a checkpoint").count()
    }
}

/// From 0 to 1. Knuth's MMIX generator: any will do that repeats itself.
fn random_share(seed: &mut u64) -> f64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 40) as f64 / (1_u64 << 24) as f64
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
    let vanilla = "[method]\nname = \"vanilla\"\n";
    for (name, method) in
        [("vanilla", vanilla), ("lora", LORA), ("adapter", ADAPTER), ("adapterfusion", &fusion)]
    {
        let (_, happened) = fight(&world, name, method, Moments::Random, (kills, 0), &mut seed);
        let Happened { resumptions, ends } = happened;
        eprintln!("{name}: {kills} kills, {resumptions} resumptions, {ends} runs ended equal");
    }

    crate::pretrain::prepare(&world);
    let happened = crate::pretrain::fight(&world, Moments::Random, (kills, 0), &mut seed);
    let Happened { resumptions, ends } = happened;
    eprintln!("pre-training: {kills} kills, {resumptions} resumptions, {ends} ended equal");
}

/// Trains a method undisturbed, and again in a campaign with at least so many kills and resumptions.
/// Gives the configuration.
fn fight(
    world: &World,
    name: &str,
    method: &str,
    moments: Moments,
    (kills, resumptions): (usize, usize),
    seed: &mut u64,
) -> (String, Happened) {
    let config = world.config_with(method).replace("save_steps = 0", "save_steps = 2");
    let (whole, killed) = (format!("{name}-whole"), format!("{name}-killed"));
    let started = Instant::now();
    let ran = world.train(&config, &whole);
    assert!(ran.success, "{}", ran.stderr);
    let campaign = Campaign {
        world,
        run: &killed,
        arguments: &["train", "--config", "config.toml", "--out", &killed, "--device", "cpu"],
        whole: started.elapsed(),
        moments,
    };
    let happened = campaign.fight(kills, resumptions, seed, || {
        assert_eq!(results(world, &killed), results(world, &whole), "{name}");
        let predictions = |run: &str| world.read(format!("{run}/predictions.tsv"));
        assert_eq!(predictions(&killed), predictions(&whole), "{name}");
        let ran = world.nsmc(&["verify", &killed]);
        assert!(ran.success, "{}{}", ran.stdout, ran.stderr);
    });
    (config, happened)
}

/// What a run found, without times and sizes of the process.
pub(crate) fn results(world: &World, run: &str) -> RunResults {
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
    let mut seed = 1;
    for (name, method) in
        [("vanilla", vanilla), ("lora", LORA), ("adapter", ADAPTER), ("fusion", &fusion)]
    {
        let moments = Moments::RandomAndAtCheckpoints;
        let (config, _) = fight(&world, name, method, moments, (10, 2), &mut seed);

        // A run that is done is left alone.
        let ran = world.train(&config, &format!("{name}-killed"));
        assert!(!ran.success && ran.stderr.contains("it is done"), "{}", ran.stderr);
    }
}
