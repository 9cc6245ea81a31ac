//! A run says what it was made of, and notices when that, or what it left, is changed.

use nsmc_experiment::{FileLock, RunRecord, RunStatus, Stretch, sha256_file};

use crate::methods::{ADAPTER, LORA, fusion};
use crate::world::{Ran, Running, World, newest_step};

fn record(world: &World, run: &str) -> RunRecord {
    RunRecord::read(&world.path(run).join("record.json")).unwrap()
}

fn trained(world: &World, config: &str, run: &str) {
    let ran = world.train(config, run);
    assert!(ran.success, "{}", ran.stderr);
}

/// A LoRA run on a pre-trained model, whose base is not in its checkpoint.
fn lora_on_a_pretrained_model() -> World {
    let world = World::new();
    trained(&world, &world.config(), "base-run");
    fs_err::rename(world.path("base-run/checkpoint/best"), world.path("base")).unwrap();
    let config = World::with_model(&world.config_with(LORA), &world.pretrained("base"));
    trained(&world, &config, "run");
    world
}

#[test]
fn a_record_says_what_the_run_was_made_of_and_nothing_of_the_machine() {
    let world = lora_on_a_pretrained_model();
    let record = record(&world, "run");
    let provenance = record.provenance.unwrap();
    let hash = |name: &str| sha256_file(&world.path(name)).unwrap();
    let expected = [
        ("data.test", "test.txt"),
        ("data.train", "train.txt"),
        ("model/config.json", "base/config.json"),
        ("model/model.safetensors", "base/model.safetensors"),
        ("model/tokenizer.json", "base/tokenizer.json"),
        ("model/tokenizer_config.json", "base/tokenizer_config.json"),
        ("model/vocab.txt", "base/vocab.txt"),
    ];
    let expected: Vec<_> =
        expected.map(|(key, file)| (key.to_owned(), hash(file))).into_iter().collect();
    assert_eq!(provenance.inputs.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(provenance.crates["burn"], "0.22.1");
    assert_eq!(provenance.lock_sha256.map(|hash| hash.len()), Some(64));
    assert_eq!((record.stretches.len(), record.started), (1, record.stretches[0].started));
    assert!((record.total_seconds - record.stretches[0].seconds).abs() < 1e-9);

    let text = world.read("run/record.json");
    let folder = world.path("").display().to_string();
    let host = fs_err::read_to_string("/etc/hostname").unwrap_or_default();
    let host = host.trim().split('.').next().unwrap_or_default();
    assert!(!text.contains(folder.trim_end_matches('/')), "{text}");
    // As a word: a machine may be called `vm`.
    let mut words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '-');
    assert!(host.is_empty() || !words.any(|word| word == host), "{text}");
}

#[test]
fn files_that_are_not_those_of_the_configuration_are_refused() {
    let world = lora_on_a_pretrained_model();
    let config = World::with_model(&world.config_with(LORA), &world.pretrained("base"));
    for file in ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"] {
        let restore = change_a_byte(&world, &format!("base/{file}"));
        let ran = world.train(&config, "other");
        assert!(!ran.success && ran.stderr.contains("expected the revision"), "{}", ran.stderr);
        // What was added to another base says something else.
        let ran = world.nsmc(&["predict", "--run", "run", "--text", "최고", "--device", "cpu"]);
        assert!(!ran.success && ran.stderr.contains("expected the revision"), "{}", ran.stderr);
        restore();
    }

    trained(&world, &world.config_with(ADAPTER), "ko");
    let ran = world.nsmc(&["export", "--run", "ko", "--format", "adapterhub", "--out", "hub"]);
    assert!(ran.success, "{}", ran.stderr);
    let config = world.config_with(&fusion(&world, "hub/nsmc"));
    for file in ["adapter_config.json", "adapter.safetensors"] {
        let restore = change_a_byte(&world, &format!("hub/nsmc/{file}"));
        let ran = world.train(&config, file);
        assert!(!ran.success && ran.stderr.contains("method.sources.ko"), "{}", ran.stderr);
        assert!(ran.stderr.contains("expected sha256"), "{}", ran.stderr);
        restore();
    }
}

/// Changes the middle byte of a file; the answer puts it back. Names of one file are parted first.
fn change_a_byte(world: &World, file: &str) -> impl FnOnce() + use<> {
    let path = world.path(file);
    let whole = fs_err::read(&path).unwrap();
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs_err::remove_file(&path).unwrap();
    fs_err::write(&path, changed).unwrap();
    move || fs_err::write(path, whole).unwrap()
}

fn verify(world: &World, run: &str) -> Ran {
    world.nsmc(&["verify", run])
}

#[test]
fn a_changed_byte_in_any_file_of_a_run_is_named() {
    let world = lora_on_a_pretrained_model();
    let ran = verify(&world, "run");
    assert!(ran.success && ran.stdout.contains("run: as it was"), "{}{}", ran.stdout, ran.stderr);
    assert!(
        ran.stdout.contains("accuracy ") && !ran.stdout.contains("not checked"),
        "{}",
        ran.stdout
    );

    let sums = world.read("run/SHA256SUMS");
    let mut files: Vec<String> = sums.lines().map(|line| format!("run/{}", &line[66..])).collect();
    for expected in ["record.json", "config.toml", "predictions.tsv", "metrics.jsonl"] {
        assert!(files.contains(&format!("run/{expected}")), "{sums}");
    }
    assert!(files.iter().any(|file| file.starts_with("run/checkpoint/last/")), "{sums}");
    let inputs = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    files.extend(inputs.map(|file| format!("base/{file}")));
    files.extend(["train.txt".to_owned(), "test.txt".to_owned(), "run/SHA256SUMS".to_owned()]);
    for file in files {
        let restore = change_a_byte(&world, &file);
        let ran = verify(&world, "run");
        assert!(!ran.success, "{file}: {}", ran.stdout);
        let name = file.strip_prefix("run/").unwrap_or(&file);
        // A changed hash in SHA256SUMS is a difference of the file that it is of.
        let named = ran.stdout.contains(name) || name == "SHA256SUMS";
        assert!(named && ran.stdout.contains("expected"), "{file}: {}", ran.stdout);
        assert!(ran.stderr.contains("1 of 1 runs"), "{}", ran.stderr);
        restore();
    }
    assert!(verify(&world, "run").success);

    // A file too many, and one too few.
    world.write("run/checkpoint/best/added_tokens.json", "{}");
    let ran = verify(&world, "run");
    assert!(!ran.success && ran.stdout.contains("added_tokens.json"), "{}", ran.stdout);
    fs_err::remove_file(world.path("run/checkpoint/best/added_tokens.json")).unwrap();
    fs_err::remove_file(world.path("run/metrics.jsonl")).unwrap();
    let ran = world.nsmc(&["verify", "--json", "run"]);
    assert!(!ran.success);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let differences = json["runs"][0]["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 1);
    assert_eq!(differences[0]["place"], "metrics.jsonl");
    assert!(json["runs"][0]["metrics"]["accuracy"].as_f64().unwrap() > 0.4);
}

#[test]
fn a_run_that_lost_its_hashes_or_an_epoch_is_not_what_it_was() {
    let world = World::new();
    trained(&world, &world.config(), "run");
    world.write("report.html", "");
    fs_err::create_dir(world.path("at_work")).unwrap();
    world.write("at_work/.lock", "1\n");
    let ran = world.nsmc(&["verify", "report.html", "run"]);
    assert!(ran.success && ran.stderr.contains("passed over"), "{}{}", ran.stdout, ran.stderr);
    let ran = world.nsmc(&["verify", "at_work", "run"]);
    assert!(!ran.success && ran.stderr.contains("1 of 2 runs"), "{}", ran.stderr);
    for expected in ["at_work: 1 difference", "the record of a finished run", "run: as it was"] {
        assert!(ran.stdout.contains(expected), "{}", ran.stdout);
    }

    let sums = world.read("run/SHA256SUMS");
    fs_err::remove_file(world.path("run/SHA256SUMS")).unwrap();
    let ran = verify(&world, "run");
    let expected = "SHA256SUMS: expected the hashes of the run's files, found no such file";
    assert!(!ran.success && ran.stdout.contains(expected), "{}", ran.stdout);
    world.write("run/SHA256SUMS", sums);

    // As a run that was stopped and taken for done would have it: all of it fits, but for the epochs.
    let text = world.read("run/record.json");
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let results = &mut record["results"];
    let last = results["epochs"].as_array_mut().unwrap().pop().unwrap();
    let steps = results["steps"].as_u64().unwrap() - last["steps"].as_u64().unwrap();
    results["steps"] = steps.into();
    world.write("run/record.json", serde_json::to_vec(&record).unwrap());
    let ran = verify(&world, "run");
    let expected = "record.json: epochs: expected 6, found 5";
    assert!(!ran.success && ran.stdout.contains(expected), "{}", ran.stdout);
}

#[test]
fn a_folder_that_is_no_run_directory_is_not_taken_for_an_unfinished_run() {
    let world = World::new();
    let majority = world.config_with("[method]\nname = \"majority\"\n");
    for run in ["one", "two"] {
        trained(&world, &majority, &format!("runs/{run}"));
    }
    fs_err::create_dir_all(world.path("runs/plots/empty")).unwrap();
    fs_err::remove_file(world.path("config.toml")).unwrap();
    let none =
        "found none, and no config.toml, .lock, resume/ or fitted.toml: this is no run directory";
    for (folder, told) in
        [("runs", "; 2 in it are: `nsmc verify runs/*`\n"), (".", "\n"), ("runs/plots", "\n")]
    {
        let ran = verify(&world, folder);
        assert!(!ran.success && ran.stdout.contains(&format!("{none}{told}")), "{}", ran.stdout);
        assert!(ran.stderr.contains("1 of 1 folders are no run directories"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("delete"), "{}", ran.stderr);
    }
    // As a shell has `runs/*`: the runs are verified all the same.
    let ran = world.nsmc(&["verify", "runs/one", "runs/plots", "runs/two"]);
    assert!(!ran.success && ran.stdout.contains("two: as it was"), "{}", ran.stdout);
    assert!(ran.stderr.contains("1 of 3 folders are no run"), "{}", ran.stderr);
    let ran = world.nsmc(&["verify", "--json", "runs"]);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let run = &json["runs"][0];
    assert_eq!((&run["is_run"], &run["unfinished"]), (&false.into(), &false.into()));

    // What is left of a run is one, whichever file it is.
    fs_err::remove_file(world.path("runs/two/record.json")).unwrap();
    fs_err::remove_file(world.path("runs/two/config.toml")).unwrap();
    let ran = verify(&world, "runs/two");
    let expected = "1 of 1 runs have not come to their end";
    assert!(!ran.success && ran.stderr.contains(expected), "{}", ran.stderr);
}

#[test]
fn a_checkpoint_that_is_another_than_the_run_saved_is_not_used() {
    let world = lora_on_a_pretrained_model();
    // Its configuration selects the best epoch.
    let file = fs_err::read_dir(world.path("run/checkpoint/best")).unwrap();
    let mut names = file.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let weights = names.find(|name| name.ends_with(".safetensors")).unwrap();
    let restore = change_a_byte(&world, &format!("run/checkpoint/best/{weights}"));
    for command in [
        &["predict", "--run", "run", "--text", "최고", "--device", "cpu"][..],
        &["evaluate", "--run", "run", "--device", "cpu"],
        &["export", "--run", "run", "--out", "exported"],
    ] {
        let ran = world.nsmc(command);
        let expected = format!("checkpoint/best/{weights}: expected sha256");
        assert!(!ran.success && ran.stderr.contains(&expected), "{command:?}: {}", ran.stderr);
    }
    restore();

    // A label that was changed, and the hash with it.
    let evaluate = ["evaluate", "--run", "run", "--device", "cpu"];
    assert!(world.nsmc(&evaluate).success);
    let predictions = world.read("run/predictions.tsv");
    let mut lines: Vec<String> = predictions.lines().map(str::to_owned).collect();
    let mut fields: Vec<&str> = predictions.lines().nth(3).unwrap().split('\t').collect();
    fields[1] = if fields[1] == "0" { "1" } else { "0" };
    lines[3] = fields.join("\t");
    world.write("run/predictions.tsv", lines.join("\n") + "\n");
    let ran = world.nsmc(&evaluate);
    assert!(!ran.success && ran.stderr.contains("do not come back"), "{}", ran.stderr);
    let expected =
        format!("line 4 of predictions.tsv is review {}, label {}", fields[0], fields[1]);
    assert!(ran.stdout.contains(&expected), "{}", ran.stdout);
}

/// A time measured afterwards goes into the record, and the run is still what it was.
fn assert_timed_again(world: &World) {
    let bench = ["bench", "run", "--run", "run", "--steps", "2", "--warmup", "1"];
    let before = world.read("run/record.json");
    assert!(world.nsmc(&bench).success);
    assert_eq!(world.read("run/record.json"), before);
    let ran = world.nsmc(&[&bench[..], &["--record"]].concat());
    assert!(ran.success, "{}", ran.stderr);
    let line: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let record: serde_json::Value = serde_json::from_str(&world.read("run/record.json")).unwrap();
    let seconds = |value: &serde_json::Value| value.as_f64().unwrap();
    assert!(seconds(&line["epoch_s"]) > 0.0);
    let recorded = seconds(&record["results"]["epoch_seconds_alone"]);
    assert!((recorded / seconds(&line["epoch_s"]) - 1.0).abs() < 1e-9);
    assert!(verify(world, "run").success);

    let ran = world.nsmc(&["bench", "inference", "--run", "run", "--rounds", "1"]);
    let line: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let tested = world.read("run/predictions.tsv").lines().count() - 1;
    assert_eq!(line["test_reviews"], tested);
    assert!(seconds(&line["predict_s"]) > 0.0 && seconds(&line["encode_s"]) > 0.0);
}

#[test]
fn a_run_whose_data_are_elsewhere_and_an_older_record_are_verified_as_far_as_they_go() {
    let world = World::new();
    trained(&world, &world.config(), "run");
    assert_timed_again(&world);
    fs_err::rename(world.path("test.txt"), world.path("moved.txt")).unwrap();
    let ran = verify(&world, "run");
    assert!(ran.success && ran.stdout.contains("not checked: data.test"), "{}", ran.stdout);
    fs_err::rename(world.path("moved.txt"), world.path("test.txt")).unwrap();

    // As it was written before there was a provenance.
    let mut old: serde_json::Value = serde_json::from_str(&world.read("run/record.json")).unwrap();
    for key in ["provenance", "stretches"] {
        old.as_object_mut().unwrap().remove(key).unwrap();
    }
    world.write("run/record.json", serde_json::to_vec(&old).unwrap());
    fs_err::remove_file(world.path("run/SHA256SUMS")).unwrap();
    let ran = verify(&world, "run");
    assert!(ran.success && ran.stdout.contains("an older record"), "{}{}", ran.stdout, ran.stderr);
    // Its predictions are still held against their hash.
    let _ = change_a_byte(&world, "run/predictions.tsv");
    assert!(!verify(&world, "run").success);
}

#[test]
fn a_run_is_used_from_any_folder_although_its_places_are_relative() {
    let world = lora_on_a_pretrained_model();
    let absolute = format!("{}/", world.path("").display().to_string().trim_end_matches('/'));
    let config = world.read("run/config.toml").replace(&absolute, "");
    // Above the one directory lies the folder that it was trained from, above the other it does not.
    let other = World::new();
    let outside = other.path("run").display().to_string();
    trained(&world, &config, "runs/relative");
    trained(&world, &config, &outside);
    fs_err::create_dir(world.path("elsewhere")).unwrap();
    let elsewhere = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.current_dir(world.path("elsewhere"));
        Running::start(command).end()
    };
    for (run, exported) in [("../runs/relative", "exported"), (&outside, "exported-too")] {
        for arguments in [
            ["predict", "--run", run, "--text", "최고", "--device", "cpu"].as_slice(),
            &["evaluate", "--run", run, "--device", "cpu"],
            &["verify", run],
            &["export", "--run", run, "--out", exported],
        ] {
            let ran = elsewhere(arguments);
            assert!(
                ran.success && !ran.stdout.contains("not checked"),
                "{}{}",
                ran.stdout,
                ran.stderr
            );
        }
        assert!(!world.read(format!("elsewhere/{exported}/README.md")).contains(&absolute));
    }
    // What is found is what the run read, or it is refused.
    fs_err::write(world.path("runs/test.txt"), world.read("train.txt")).unwrap();
    let ran = elsewhere(&["evaluate", "--run", "../runs/relative", "--device", "cpu"]);
    assert!(!ran.success && ran.stderr.contains("expected sha256"), "{}", ran.stderr);
}

#[test]
fn a_run_is_told_where_its_files_lie_by_now_if_they_are_the_same() {
    let world = lora_on_a_pretrained_model();
    fs_err::create_dir(world.path("moved")).unwrap();
    for name in ["train.txt", "test.txt", "base"] {
        fs_err::rename(world.path(name), world.path("moved").join(name)).unwrap();
    }
    let set = [
        "data.train.path=moved/train.txt",
        "data.test.path=moved/test.txt",
        "model.path=moved/base",
    ];
    let set: Vec<&str> = set.iter().flat_map(|&place| ["--set", place]).collect();
    let of_run = |command: &[&'static str], more: &[&'static str]| {
        [command, &["--run", "run"], more].concat()
    };
    let predict = of_run(&["predict"], &["--text", "최고", "--device", "cpu"]);
    let evaluate = of_run(&["evaluate"], &["--device", "cpu"]);
    let export = of_run(&["export"], &["--out", "exported"]);
    let steps = of_run(&["bench", "run"], &["--steps", "1", "--warmup", "0"]);
    let inference = of_run(&["bench", "inference"], &["--rounds", "1"]);
    let commands = [&predict, &evaluate, &export, &steps, &inference];
    for command in commands {
        let ran = world.nsmc(command);
        let says = ["--set model.path=DIR", "--set data.train.path=FILE"];
        let says = says.iter().any(|how| ran.stderr.contains(how));
        assert!(!ran.success && says, "{command:?}: {}", ran.stderr);
    }
    let ran = verify(&world, "run");
    assert!(ran.success && ran.stdout.contains("(`--set model.path=…` says"), "{}", ran.stdout);

    for command in commands {
        let ran = world.nsmc(&[command.as_slice(), &set].concat());
        assert!(ran.success, "{command:?}: {}", ran.stderr);
    }
    let ran = world.nsmc(&[evaluate.as_slice(), &set].concat());
    assert!(ran.stdout.contains("come back to the last bit"), "{}", ran.stdout);
    let ran = world.nsmc(&[&["verify", "run"], set.as_slice()].concat());
    assert!(ran.success && !ran.stdout.contains("not checked"), "{}{}", ran.stdout, ran.stderr);

    let refused = |command: &[&str], set: &[&str], expected: &str| {
        let ran = world.nsmc(&[command, set].concat());
        assert!(!ran.success && ran.stderr.contains(expected), "{command:?}: {}", ran.stderr);
    };
    let restore = change_a_byte(&world, "moved/test.txt");
    for command in [evaluate.as_slice(), &["verify", "run"]] {
        refused(command, &set, "moved/test.txt: expected sha256");
    }
    restore();
    let restore = change_a_byte(&world, "moved/base/model.safetensors");
    for command in [predict.as_slice(), &["verify", "run"]] {
        refused(command, &set, "moved/base: expected the revision");
    }
    restore();
    refused(&evaluate, &["--set", "data.train.path=nowhere"], "nowhere: no such file");
    refused(
        &evaluate,
        &["--set", "training.learning_rate=1"],
        "expected a place of what the run read",
    );
}

#[test]
fn a_run_in_several_stretches_counts_all_of_them() {
    let world = World::new();
    let config = world.config().replace("save_steps = 0", "save_steps = 2");
    world.write("config.toml", &config);
    // What processes that were killed left behind: an hour and half an hour.
    fs_err::create_dir(world.path("run")).unwrap();
    world.write("run/config.toml", &config);
    let stretch = |started, seconds, peak| Stretch {
        started,
        seconds,
        peak_memory_mib: Some(peak),
        program: None,
        device: None,
    };
    let mut earlier = [stretch(1_000, 3600.0, 1e6), stretch(9_000, 1800.0, 1.0)];
    earlier[1].program = Some("c0ffee".into());
    earlier[1].device = Some("another machine".into());
    world.write("run/stretches.json", serde_json::to_vec(&earlier).unwrap());
    trained(&world, &config, "run");
    let record = record(&world, "run");
    assert_eq!(record.status, RunStatus::Success);
    assert_eq!((record.started, record.stretches.len()), (1_000, 3));
    assert_eq!(record.stretches[..2], earlier);
    let own = record.stretches[2].seconds;
    assert!(own > 0.0 && own < 600.0, "{own}");
    assert!((record.total_seconds - 5400.0 - own).abs() < 1e-9);
    assert_eq!(record.results.unwrap().peak_memory_mib, Some(1e6));
    assert!(!world.path("run/stretches.json").exists());
    // A program that was built outside of git does not know what it is.
    if let Some(program) = &record.stretches[2].program {
        let said = format!("goes on from what the program of c0ffee left, with that of {program}");
        assert!(world.read("run/log.txt").contains(&said));
        let verified = world.nsmc(&["verify", "run"]);
        assert!(verified.success, "{}", verified.stderr);
        let note = format!("several programs worked on it, one after the other: c0ffee, {program}");
        assert!(verified.stdout.contains(&note), "{}", verified.stdout);
    }
    let device = record.stretches[2].device.as_ref().unwrap();
    assert_eq!(*device, record.device);
    let said = format!("goes on on {device}, after another machine");
    assert!(world.read("run/log.txt").contains(&said));
    let verified = world.nsmc(&["verify", "run"]);
    let note = format!("and its times are of all: another machine; {device}");
    assert!(verified.stdout.contains(&note), "{}", verified.stdout);
}

#[test]
fn a_killed_process_leaves_its_stretch() {
    let world = World::new();
    let config = world.config().replace("num_train_epochs = 6", "num_train_epochs = 100000");
    world.write("config.toml", &config);
    let mut process = start(&world, "run");
    let path = world.path("run/stretches.json");
    let seconds = || -> Option<f64> {
        let stretches: Vec<Stretch> = serde_json::from_slice(&fs_err::read(&path).ok()?).ok()?;
        Some(stretches.last()?.seconds)
    };
    process.until("a stretch of a second", || seconds() >= Some(1.0));
    assert!(process.kill());
    let stretches: Vec<Stretch> = serde_json::from_str(&world.read("run/stretches.json")).unwrap();
    assert_eq!(stretches.len(), 1);
    assert!(stretches[0].seconds >= 1.0, "{stretches:?}");
    assert!(stretches[0].peak_memory_mib.unwrap() > 1.0, "{stretches:?}");
}

#[test]
fn a_base_that_is_replaced_while_a_run_is_at_work_is_noticed_before_the_test() {
    let world = lora_on_a_pretrained_model();
    let config = World::with_model(&world.config_with(LORA), &world.pretrained("base"))
        .replace("num_train_epochs = 6", "num_train_epochs = 20");
    world.write("config.toml", &config);
    let mut process = start(&world, "other");
    let resume = world.path("other/resume");
    process.until("at the end of an epoch", || newest_step(&resume).is_some());
    let restore = change_a_byte(&world, "base/model.safetensors");
    let Ran { success, stderr, .. } = process.end();
    for expected in ["read again after the training", "expected the revision"] {
        assert!(!success && stderr.contains(expected), "{expected}: {stderr}");
    }
    assert!(!world.path("other/predictions.tsv").exists());
    restore();
    trained(&world, &config, "other");
}

fn start(world: &World, run: &str) -> Running {
    world.start(&["train", "--config", "config.toml", "--out", run, "--device", "cpu"])
}

#[test]
fn a_second_process_is_refused_while_the_first_lives_and_not_when_it_was_killed() {
    let world = World::new();
    let endless = world.config().replace("num_train_epochs = 6", "num_train_epochs = 100000");
    world.write("config.toml", &endless);
    let mut first = start(&world, "run");
    let (lock, id) = (world.path("run/.lock"), first.id());
    first.until("the lock", || FileLock::holder(&lock) == Some(id));
    let ran = world.train(&endless, "run");
    let named = format!("another process ({id}) is at work");
    assert!(!ran.success && ran.stderr.contains(&named), "{}", ran.stderr);
    // Not its own business: what the first one does goes on.
    assert!(first.at_work());
    assert!(!world.path("run/record.json").exists());

    assert!(first.kill());
    let whole = world.config();
    fs_err::remove_dir_all(world.path("run")).unwrap();
    fs_err::create_dir(world.path("run")).unwrap();
    // The lock's file of a process that is gone.
    world.write("run/.lock", "1\n");
    trained(&world, &whole, "run");
}

#[test]
fn runs_side_by_side_share_a_cache_and_find_the_same() {
    let world = World::new();
    world.write("config.toml", world.config());
    let processes: Vec<_> = (0..4).map(|run| start(&world, &format!("run-{run}"))).collect();
    for process in processes {
        let ran = process.end();
        assert!(ran.success, "{}", ran.stderr);
    }
    let hashes: Vec<String> = (0..4)
        .map(|run| record(&world, &format!("run-{run}")).results.unwrap().predictions_sha256)
        .collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    // One file for the training reviews, one for the test's, and no half ones.
    assert_eq!(fs_err::read_dir(world.path("cache")).unwrap().count(), 2);
}
