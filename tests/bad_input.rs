use nsmc_experiment::{FileHashes, RunRecord, RunStatus, WeightsKind};

use crate::world::{World, newest_step};

/// Training must fail with one clear error, and leave no half of a result.
#[track_caller]
fn refused(world: &World, config: &str, expected: &[&str]) {
    let ran = world.train(config, "run");
    assert!(!ran.success, "it went through: {}", ran.stdout);
    for expected in expected {
        assert!(ran.stderr.contains(expected), "{expected}\nis not in\n{}", ran.stderr);
    }
    let errors = ran.stderr.lines().filter(|line| line.starts_with("error:"));
    assert_eq!(errors.count(), 1, "{}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    assert!(!world.path("run").exists(), "a run that never began left a directory");
}

#[test]
fn a_run_that_was_begun_keeps_all_it_has_when_it_fails_before_its_next_step() {
    let world = World::new();
    let config = world.config().replace("num_train_epochs = 6", "num_train_epochs = 20");
    world.write("config.toml", &config);
    let train = ["train", "--config", "config.toml", "--out", "run", "--device", "cpu"];
    let resume = world.path("run/resume");
    let mut process = world.start(&train);
    process.until("at its checkpoint", || newest_step(&resume) >= Some(12));
    assert!(process.kill());
    let step = newest_step(&resume);

    fs_err::rename(world.path("test.txt"), world.path("moved.txt")).unwrap();
    let ran = world.nsmc(&train);
    assert!(!ran.success && ran.stderr.contains("test.txt: no such file"), "{}", ran.stderr);
    assert_eq!(newest_step(&resume), step);
    let record = RunRecord::read(&world.path("run/record.json")).unwrap();
    let RunStatus::Failed { error } = record.status else { panic!("{:?}", record.status) };
    assert!(error.contains("test.txt: no such file"), "{error}");
    let ran = world.nsmc(&["verify", "run"]);
    let told =
        "1 of 1 runs have not come to their end: the command that began a run goes on with it";
    assert!(!ran.success && ran.stderr.contains(told), "{}", ran.stderr);
    assert!(!ran.stderr.contains("not what they were"), "{}", ran.stderr);

    fs_err::rename(world.path("moved.txt"), world.path("test.txt")).unwrap();
    let ran = world.nsmc(&train);
    assert!(ran.success && ran.stderr.contains("resumed: "), "{}", ran.stderr);
}

#[test]
fn a_run_that_was_killed_before_its_first_checkpoint_keeps_its_log_when_it_fails_then() {
    let world = World::new();
    let config = world.config().replace("num_train_epochs = 6", "num_train_epochs = 100000");
    world.write("config.toml", config);
    let train = ["train", "--config", "config.toml", "--out", "run", "--device", "cpu"];
    let mut process = world.start(&train);
    let log = world.path("run/log.txt");
    process.until("begun", || log.is_file());
    assert!(process.kill());
    fs_err::rename(world.path("train.txt"), world.path("moved.txt")).unwrap();
    let ran = world.nsmc(&train);
    assert!(!ran.success && ran.stderr.contains("train.txt: no such file"), "{}", ran.stderr);
    assert!(log.is_file() && world.path("run/config.toml").is_file());
}

#[test]
fn a_configuration_with_mistakes_is_refused_with_all_of_them() {
    let world = World::new();
    let config = world
        .config()
        .replace("learning_rate = 3e-3", "learning_rte = 1e-2")
        .replace("selection = \"best\"", "selection = \"newest\"");
    refused(
        &world,
        &config,
        &[
            "3 mistakes",
            "config.toml:39: `training.learning_rte`: unknown key; did you mean `learning_rate`?",
            "`training.learning_rate`: missing",
            "`training.selection`: expected \"last\" or \"best\", found the string \"newest\"",
        ],
    );
    for (numerics, expected) in [
        (
            "",
            "found 1: it is of a program before this change: biases and LayerNorm parameters no longer",
        ),
        ("numerics = 3\n", "expected `numerics = 2`, found 3: it is of a later program"),
    ] {
        let of_another_program = world.config().replace("numerics = 2\n", numerics);
        refused(&world, &of_another_program, &["config.toml: ", expected]);
    }
    let bf16 = config_with_precision(&world, "bf16");
    refused(&world, &bf16, &["`training.precision`: products in bf16 are for GPUs alone"]);
    let half = config_with_precision(&world, "half");
    refused(&world, &half, &["`training.precision`: expected \"float32\" or \"bf16\""]);
    let names = "label_names = [\"negative\", \"positive\"]";
    let alike = world.config().replace(names, "label_names = [\"good\", \"good\"]");
    refused(&world, &alike, &["`data.label_names`: expected an array of 2 different strings"]);
    let profile = include_str!("../configs/mini.toml");
    refused(&world, profile, &["config.toml", "found a profile", "`--profile NAME`"]);
    refused(&world, "seed = \n", &["config.toml: not valid TOML"]);
    let twice = world.nsmc(&["train", "--config", "config.toml", "--out", "run"]).stderr;
    assert_eq!(twice.matches("TOML parse error").count(), 1, "{twice}");
    let ran = world.nsmc(&["train", "--config", "none.toml", "--out", "run"]);
    assert!(!ran.success && ran.stderr.contains("none.toml"), "{}", ran.stderr);
}

fn config_with_precision(world: &World, precision: &str) -> String {
    let line = "max_grad_norm = 1.0\n";
    world.config().replace(line, &format!("{line}precision = \"{precision}\"\n"))
}

#[test]
fn bad_rows_are_named_by_file_and_line() {
    let world = World::new();
    let good = world.read("train.txt");
    for (tail, expected) in [
        ("900\t좋다\n", "train.txt:242: expected 3 fields, as in the header, found 2"),
        ("900\t좋\t다\t1\n", "train.txt:242: expected 3 fields, as in the header, found 4"),
        ("900\t좋다\t5\n", "train.txt:242: expected a label of \"0\", \"1\", found \"5\""),
        ("0\t좋다\t1\n", "train.txt:242: the id \"0\" stands on line 2 already"),
    ] {
        world.write("train.txt", format!("{good}{tail}"));
        refused(&world, &world.config(), &[expected]);
    }
    let mut bytes = good.clone().into_bytes();
    bytes.extend(b"900\t\xff\xfe\t1\n");
    world.write("train.txt", bytes);
    refused(&world, &world.config(), &["train.txt:242: not valid UTF-8"]);
    world.write("train.txt", good.replace("id\tdocument\tlabel", "id\ttext\tlabel"));
    refused(
        &world,
        &world.config(),
        &["train.txt:1: expected a column `document`, found id, text, label"],
    );
}

#[test]
fn data_that_is_not_what_was_configured_is_refused() {
    let world = World::new();
    let config = world.config();
    refused(
        &world,
        &config.replacen("class_counts = []", "class_counts = [100, 140]", 1),
        &["train.txt: expected [100, 140] reviews per class, found [120, 120]"],
    );
    refused(
        &world,
        &config.replace("train_size = 200", "train_size = 241"),
        &["`data.train_size`: expected a size of at most 240 training reviews, found 241"],
    );
    world.write("test.txt", world.read("test.txt").replace("1001", "9999"));
    refused(&world, &config, &["test.txt: expected sha256", "the file is not the one"]);
    fs_err::remove_file(world.path("test.txt")).unwrap();
    refused(&world, &config, &["test.txt: no such file", "cargo xtask download"]);
}

#[test]
fn a_run_directory_that_holds_anything_is_left_alone() {
    let world = World::new();
    fs_err::create_dir_all(world.path("taken")).unwrap();
    world.write("taken/thesis.txt", "two years of work");
    let ran = world.train(&world.config(), "taken");
    assert!(!ran.success && ran.stderr.contains("not empty"), "{}", ran.stderr);
    assert_eq!(fs_err::read_dir(world.path("taken")).unwrap().count(), 1);

    assert!(world.train(&world.config(), "run").success);
    let other = world.config().replace("seed = 7", "seed = 8");
    let ran = world.train(&other, "run");
    let expected = "holds another run (`seed` is 7 there and 8 here); give another";
    assert!(!ran.success && ran.stderr.contains(expected), "{}", ran.stderr);
}

#[test]
fn a_model_that_does_not_fit_is_refused() {
    let world = World::new();
    assert!(world.train(&world.config(), "base").success);
    let scratch = world.config();
    let pretrained = |folder: &str| World::with_model(&scratch, &world.pretrained(folder));
    refused(&world, &pretrained("nowhere"), &["nowhere: no such folder", "cargo xtask download"]);

    let copy = |name: &str| {
        fs_err::create_dir_all(world.path(name)).unwrap();
        for entry in fs_err::read_dir(world.path("base/checkpoint/best")).unwrap() {
            let file = entry.unwrap().path();
            fs_err::copy(&file, world.path(name).join(file.file_name().unwrap())).unwrap();
        }
    };
    copy("short");
    let weights = fs_err::read(world.path("short/model.safetensors")).unwrap();
    world.write("short/model.safetensors", &weights[..weights.len() / 2]);
    refused(&world, &pretrained("short"), &["model.safetensors", "is the file complete?"]);

    copy("nan");
    let mut broken = weights.clone();
    let end_of_file = broken.len();
    broken[end_of_file - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    world.write("nan/model.safetensors", &broken);
    refused(&world, &pretrained("nan"), &["not finite"]);

    copy("vocab");
    let tokenizer = world.read("vocab/vocab.txt") + "하나더\n";
    world.write("vocab/vocab.txt", tokenizer);
    fs_err::remove_file(world.path("vocab/tokenizer.json")).unwrap();
    refused(&world, &pretrained("vocab"), &["the tokenizer has", "word embeddings have"]);

    refused(
        &world,
        &pretrained("base/checkpoint/best").replace("max_length = 24", "max_length = 25"),
        &["`data.max_length`: expected at most the model's 24 positions, found 25"],
    );

    copy("config");
    let config =
        world.read("config/config.json").replace("\"hidden_size\": 16", "\"hidden_size\": 32");
    world.write("config/config.json", config);
    refused(&world, &pretrained("config"), &["the tensors do not fit the model", "mismatched"]);
}

#[test]
fn cuda_is_refused_by_a_program_built_without_it() {
    let world = World::new();
    world.write("config.toml", world.config());
    let arguments = ["train", "--config", "config.toml", "--out", "run", "--device", "cuda"];
    let ran = world.nsmc(&arguments);
    assert!(!ran.success && ran.stderr.contains("built without CUDA"), "{}", ran.stderr);
    assert!(!world.path("run").exists());
}

const FUSION: &str = r#"
[method]
name = "adapterfusion"
setup = "Fuse(ko, nsmc)"
adapter_setup = "nsmc"
fusion = "dynamic"
regularization = false
unfreeze_adapters = false
keep_head = false
head = "classifier"
trains = ["head"]
[method.adapter]
name = "nsmc"
config = "pfeiffer"
reduction_factor = 4
layer_reduction_factors = {}
leave_out = []
non_linearity = "preset"
invertible = false
dropout = 0.0
[method.adapter_training]
num_train_epochs = 1
learning_rate = 1e-3
[method.sources.ko]
from = "ko"
invertible_non_linearity = "preset"
path = "ko"
sha256 = ""
"#;

const SOURCE: &str =
    "from = \"ko\"\ninvertible_non_linearity = \"preset\"\npath = \"ko\"\nsha256 = \"{sha}\"\n";

#[test]
fn a_setup_that_cannot_be_is_refused_before_anything_trains() {
    let world = World::new();
    fs_err::create_dir(world.path("ko")).unwrap();
    world.write("ko/adapter.safetensors", "never read");
    let sha256 =
        WeightsKind::Adapter.sha256(&world.path("ko"), &FileHashes::default()).unwrap().unwrap();
    let fusion = FUSION.replace("sha256 = \"\"", &format!("sha256 = \"{sha256}\""));
    for (setup, expected) in [
        ("Fuse(ko, Fuse(nsmc))", "a `Fuse` within a `Fuse`"),
        ("Parallel(ko, nsmc)", "`Parallel(` is not known"),
        ("Fuse(ko, ../nsmc)", "`../nsmc` is no adapter's name"),
        ("Fuse(ko, nsmc", "a `)` is missing"),
        ("[ko, nsmc]", "`[ko` is no adapter's name"),
    ] {
        // Before the data are read, too, which is said by the file and the line.
        let config = world.config_with(&fusion.replace("Fuse(ko, nsmc)", setup));
        let place = "`method.setup`: expected adapters as AdapterHub writes them";
        let found = format!("found \"{setup}\": ");
        refused(&world, &config, &["config.toml:", place, &found, expected]);
    }
    // Adapters are joined by commas without spaces, in the order of the setup.
    world.write("ko/model_adapter_fusion.safetensors", "never read");
    for unread in ["fi", "ko, nsmc", "nsmc,ko"] {
        let kind = if unread == "fi" { WeightsKind::Adapter } else { WeightsKind::Fusion };
        let sha256 = kind.sha256(&world.path("ko"), &FileHashes::default()).unwrap().unwrap();
        let source = format!("[method.sources.\"{unread}\"]\n{}", SOURCE.replace("{sha}", &sha256));
        let expected = format!("`method.sources.\"{unread}\"`: nothing is read from it");
        let config = world.config_with(&format!("{fusion}{source}"));
        refused(&world, &config, &[&expected, "expected one of head; nsmc; ko; ko,nsmc"]);
    }
    let missing = fusion.replace("path = \"ko\"", "path = \"nowhere\"");
    refused(&world, &world.config_with(&missing), &["`method.sources.ko` (ko)", "nowhere"]);
    let named = fusion.replace("name = \"nsmc\"", "name = \"a/b\"");
    refused(&world, &world.config_with(&named), &["`method.adapter.name`: expected letters"]);
}

#[test]
fn a_layer_that_trains_whole_takes_no_lora() {
    let world = World::new();
    let lora = crate::methods::LORA.replace("\"layer_norm\"]", "\"embeddings\"]");
    let lora = world.config_with(&lora);
    let place = "`method.target_modules`: LoRA on `bert.embeddings.word_embeddings`";
    refused(&world, &lora, &[place, "`method.exclude_modules`"]);
    let classifier = lora.replace("\"word_embeddings\"", "\"classifier\"");
    refused(&world, &classifier, &["`method.target_modules`: LoRA on `classifier`"]);
    let excluded = lora.replace("exclude_modules = []", "exclude_modules = [\"word_embeddings\"]");
    let ran = world.train(&excluded, "run");
    assert!(ran.success, "{}", ran.stderr);
}

#[test]
fn a_share_that_would_leave_nothing_out_is_refused() {
    let world = World::new();
    let stars = ["stars", "--archive", "none", "--train", "none", "--test", "none", "--out", "out"];
    for (flag, value) in [
        ("--validation-fraction", "1.5"),
        ("--validation-fraction", "-0.1"),
        ("--validation-fraction", "nan"),
        ("--test-fraction", "1"),
        ("--corpus-sha256", "가나다라마바"),
    ] {
        let ran = world.nsmc(&[&stars[..], &[&format!("{flag}={value}")]].concat());
        assert!(ran.stderr.contains(flag) && ran.stderr.contains("expected"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    }
}
