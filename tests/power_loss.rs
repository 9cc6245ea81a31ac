//! What a power failure, or a disk that is dying, leaves of a run that was stopped: files that are
//! empty, cut, changed or gone.

use std::path::Path;

use nsmc_experiment::RunResults;

use crate::kill::results;
use crate::methods::{ADAPTER, fusion};
use crate::world::{World, newest_step};

/// What a run found, without times and sizes of the process: its record's results, its predictions,
/// and what its trainings measured.
pub(crate) fn found(world: &World, run: &str) -> (RunResults, String, Vec<serde_json::Value>) {
    let mut metrics = Vec::new();
    for file in ["adapter/metrics.jsonl", "metrics.jsonl"] {
        let path = world.path(run).join(file);
        let lines =
            if path.is_file() { fs_err::read_to_string(path).unwrap() } else { String::new() };
        for line in lines.lines() {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("train_seconds").unwrap();
            metrics.push(line);
        }
    }
    (results(world, run), world.read(format!("{run}/predictions.tsv")), metrics)
}

pub(crate) fn train(run: &str) -> [&str; 7] {
    ["train", "--config", "config.toml", "--out", run, "--device", "cpu"]
}

/// Kills what works in `stopped` when there is a checkpoint of that step in a folder of it.
fn stop(world: &World, arguments: &[&str], folder: &str, step: usize) {
    let folder = world.path("stopped").join(folder);
    let mut process = world.start(arguments);
    process.until("at its step", || newest_step(&folder) >= Some(step));
    process.kill();
}

fn copy(from: &Path, to: &Path) {
    fs_err::create_dir(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs_err::copy(entry.path(), target).unwrap();
        }
    }
}

/// The files below a folder, as paths from there.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|file| format!("{name}/{file}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    Empty,
    Half,
    /// A byte in the middle that is in no UTF-8.
    Byte,
    Gone,
}

const DAMAGES: [Damage; 4] = [Damage::Empty, Damage::Half, Damage::Byte, Damage::Gone];

fn damage(path: &Path, damage: Damage) {
    let mut bytes = fs_err::read(path).unwrap();
    let middle = bytes.len() / 2;
    match damage {
        Damage::Empty => bytes.clear(),
        Damage::Half => bytes.truncate(middle),
        Damage::Byte if bytes.is_empty() => {}
        Damage::Byte => bytes[middle] = if bytes[middle] == 0xff { 0xfe } else { 0xff },
        Damage::Gone => return fs_err::remove_file(path).unwrap(),
    }
    fs_err::write(path, bytes).unwrap();
}

/// Each kind of damage to the files that say where a run stands, and to each other file the next
/// kind; with `all`, each kind to each file.
fn damages(files: &[String], all: bool) -> Vec<(String, Damage)> {
    let mut damages = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let state = ["config.toml", "stretches.json", "state.toml", "fitted.toml"];
        if all || state.iter().any(|name| file.rsplit('/').next() == Some(name)) {
            damages.extend(DAMAGES.map(|damage| (file.clone(), damage)));
        } else {
            damages.push((file.clone(), DAMAGES[index % DAMAGES.len()]));
        }
    }
    damages
}

/// What has to be said of a damaged file.
struct Told {
    /// A name to warn with; none where nothing is lost.
    named: Option<String>,
    /// Something else that is said.
    also: Option<&'static str>,
}

/// Damages one file of `stopped` after the other, and has the same command end in `run`.
fn each_may_be_damaged(
    world: &World,
    arguments: &[&str],
    damages: &[(String, Damage)],
    told: impl Fn(&str, Damage) -> Told,
    same: impl Fn(&str),
) {
    for (file, kind) in damages {
        copy(&world.path("stopped"), &world.path("run"));
        damage(&world.path("run").join(file), *kind);
        let ran = world.nsmc(arguments);
        let what = format!("{file}: {kind:?}: {}", ran.stderr);
        assert!(ran.success && !ran.stderr.contains("panicked"), "{what}");
        let told = told(file, *kind);
        if let Some(named) = &told.named {
            assert!(ran.stderr.contains("WARN") && ran.stderr.contains(named), "{named}? {what}");
            let log = world.read("run/log.txt");
            assert!(log.contains("WARN") && log.contains(named), "{named} in the log? {what}");
        } else {
            assert!(!ran.stderr.contains("WARN"), "{what}");
        }
        if let Some(also) = told.also {
            assert!(ran.stderr.contains(also), "{also}? {what}");
        }
        same(&what);
        fs_err::remove_dir_all(world.path("run")).unwrap();
    }
}

/// The same for a run: it ends as `whole` did. Gives the number of damaged files.
fn each_file_of_a_run_may_be_damaged(
    world: &World,
    files: &[String],
    all: bool,
    told: impl Fn(&str, Damage) -> Told,
) -> usize {
    let expected = found(world, "whole");
    let damages = damages(files, all);
    each_may_be_damaged(world, &train("run"), &damages, told, |what| {
        assert_eq!(found(world, "run"), expected, "{what}");
        let verified = world.nsmc(&["verify", "run"]);
        assert!(verified.success, "{what}{}{}", verified.stdout, verified.stderr);
    });
    damages.len()
}

/// What is said where the first of two stages is lost.
const STAGE_ANEW: &str =
    "the stage before is trained anew, and so is the one that was trained on its model";

/// Of a run that was stopped in its last or only stage.
fn told_while_training(file: &str, kind: Damage, newest: usize) -> Told {
    let state = matches!(file, "stretches.json" | "adapter/fitted.toml") && kind != Damage::Gone;
    let named = if state
        || file == "config.toml"
        || file.starts_with(&format!("resume/step-{newest}/"))
    {
        Some(file.to_owned())
    } else {
        // A model is damaged whichever of its files is.
        ["checkpoint/best", "adapter/checkpoint", "adapter/fitted.toml"]
            .into_iter()
            .find(|lost| file.starts_with(lost))
            .map(|lost| if lost == "adapter/fitted.toml" { STAGE_ANEW } else { lost }.to_owned())
    };
    let also = if file.starts_with("adapter/checkpoint/") || file == "adapter/fitted.toml" {
        STAGE_ANEW
    } else if file.starts_with("checkpoint/best/") {
        // Every checkpoint goes on to be measured against the best model.
        "the training begins anew"
    } else {
        "resumed: "
    };
    Told { named, also: Some(also) }
}

fn vanilla(all: bool) -> usize {
    let world = World::new();
    let config = world.config().replace("save_steps = 0", "save_steps = 5");
    let whole = world.train(&config, "whole");
    assert!(whole.success, "{}", whole.stderr);
    // In the third of six epochs.
    stop(&world, &train("stopped"), "resume", 30);
    let stopped = files(&world.path("stopped"));
    let model = ["checkpoint/best/vocab.txt", "checkpoint/last/model.safetensors"];
    for expected in ["config.toml", "stretches.json", "metrics.jsonl"].iter().chain(&model) {
        assert!(stopped.iter().any(|file| file == expected), "{expected}: {stopped:?}");
    }
    let newest = newest_step(&world.path("stopped/resume")).unwrap();
    let training = each_file_of_a_run_may_be_damaged(&world, &stopped, all, |file, kind| {
        told_while_training(file, kind, newest)
    });

    // A run that is trained, and was stopped in its test.
    fs_err::remove_dir_all(world.path("stopped")).unwrap();
    copy(&world.path("whole"), &world.path("stopped"));
    for file in ["record.json", "SHA256SUMS"] {
        fs_err::remove_file(world.path("stopped").join(file)).unwrap();
    }
    let trained = files(&world.path("stopped"));
    assert!(trained.contains(&"fitted.toml".to_owned()), "{trained:?}");
    let testing = each_file_of_a_run_may_be_damaged(&world, &trained, all, |file, kind| {
        let gone = kind == Damage::Gone;
        let named = match file {
            "config.toml" => Some(file),
            "fitted.toml" if !gone => Some(file),
            _ if file.starts_with("checkpoint/") => Some("checkpoint"),
            _ => None,
        };
        Told { named: named.map(str::to_owned), also: None }
    });
    training + testing
}

#[test]
fn a_run_goes_on_whichever_of_its_files_a_power_failure_damaged() {
    assert!(vanilla(false) > 50);
}

fn adapter_fusion(all: bool) -> usize {
    let world = World::new();
    assert!(world.train(&world.config_with(ADAPTER), "ko").success);
    let export = world.nsmc(&["export", "--run", "ko", "--format", "adapterhub", "--out", "hub"]);
    assert!(export.success, "{}", export.stderr);
    let config = world.config_with(&fusion(&world, "hub/nsmc"));
    let config = config.replace("save_steps = 0", "save_steps = 5");
    let whole = world.train(&config, "whole");
    assert!(whole.success, "{}", whole.stderr);
    stop(&world, &train("stopped"), "resume", 30);
    let stopped = files(&world.path("stopped"));
    for expected in ["adapter/fitted.toml", "adapter/checkpoint/best/peft.json"] {
        assert!(stopped.iter().any(|file| file == expected), "{expected}: {stopped:?}");
    }
    let newest = newest_step(&world.path("stopped/resume")).unwrap();
    each_file_of_a_run_may_be_damaged(&world, &stopped, all, |file, kind| {
        told_while_training(file, kind, newest)
    })
}

#[test]
fn an_adapter_fusion_goes_on_in_its_second_stage_whichever_file_was_damaged() {
    assert!(adapter_fusion(false) > 50);
}

/// Every kind of damage to every file.
#[test]
#[ignore = "minutes: cargo test -p nsmc-cli --test e2e every_damage -- --ignored --nocapture"]
fn every_damage_to_every_file_changes_no_result() {
    let damaged = vanilla(true) + adapter_fusion(true);
    eprintln!("{damaged} damaged files, as many runs that ended equal");
}

#[test]
fn a_pre_training_goes_on_whichever_of_its_files_was_damaged() {
    let world = World::new();
    crate::pretrain::prepare(&world);
    let pretrain = |run: &'static str| {
        ["pretrain", "--config", "pretraining.toml", "--out", run, "--device", "cpu"]
    };
    let whole = world.nsmc(&pretrain("whole"));
    assert!(whole.success, "{}", whole.stderr);
    stop(&world, &pretrain("stopped"), "checkpoint", 9);
    let newest =
        format!("checkpoint/step-{}", newest_step(&world.path("stopped/checkpoint")).unwrap());
    let file = |name: &str| format!("{newest}/{name}");
    let damages = [
        ("config.toml".into(), Damage::Empty),
        ("stretches.json".into(), Damage::Half),
        (file("state.toml"), Damage::Empty),
        (file("state.toml"), Damage::Byte),
        (file("weights.bpk"), Damage::Half),
        (file("optimizer.bpk"), Damage::Gone),
        // Half of it is a smaller vocabulary.
        ("tokenizer/vocab.txt".into(), Damage::Half),
        ("tokenizer/tokenizer.json".into(), Damage::Byte),
        ("tokenizer.sha256".into(), Damage::Empty),
    ];
    let told = |file: &str, _| {
        let named = if file.starts_with("tokenizer") { "run/tokenizer" } else { file };
        Told { named: Some(named.into()), also: Some("resumed after step ") }
    };
    each_may_be_damaged(&world, &pretrain("run"), &damages, told, |_| {
        crate::pretrain::assert_same(&world, "run", "whole");
    });
}

#[test]
fn a_directory_is_ones_own_by_what_all_its_files_say() {
    let world = World::new();
    let config = world.config().replace("save_steps = 0", "save_steps = 5");
    world.write("config.toml", &config);
    stop(&world, &train("stopped"), "resume", 15);
    let refused = |said: &str| {
        let before: Vec<_> = files(&world.path("run"));
        let ran = world.nsmc(&train("run"));
        assert!(!ran.success && ran.stderr.contains(said), "not {said}: {}", ran.stderr);
        assert_eq!(files(&world.path("run")), before);
        fs_err::remove_dir_all(world.path("run")).unwrap();
    };

    // Another run's, whose configuration is damaged or gone: it is not replaced by one's own.
    world.write("config.toml", config.replace("seed = 7", "seed = 8"));
    for kind in DAMAGES {
        copy(&world.path("stopped"), &world.path("run"));
        damage(&world.path("run/config.toml"), kind);
        refused("holds another run");
    }
    // One file of another run among those of this one.
    world.write("config.toml", &config);
    copy(&world.path("stopped"), &world.path("run"));
    world.write("run/config.toml", "");
    world.write("run/record.json", format!("{{\"identity\": \"{}\"}}", "0".repeat(64)));
    refused("holds another run");
    // Before the first checkpoint there is nothing to tell by, and nothing to lose.
    fs_err::create_dir(world.path("run")).unwrap();
    for file in ["run/.lock", "run/config.toml", "run/log.txt"] {
        world.write(file, "");
    }
    refused("no other file says which run the directory is of");
    // A folder that is no run's.
    fs_err::create_dir(world.path("run")).unwrap();
    world.write("run/.lock", "");
    world.write("run/notes.txt", "mine");
    refused("the run directory is not empty");
    // A configuration that was being written when the power failed is none.
    fs_err::create_dir(world.path("run")).unwrap();
    world.write("run/.lock", "");
    world.write("run/config.toml.partial", &config[..40]);
    assert!(world.nsmc(&train("run")).success);
}
