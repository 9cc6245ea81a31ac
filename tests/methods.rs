//! Every method through the program: trained, tested again in another process, exported, and
//! started from what was exported.

use nsmc_experiment::{FileHashes, FusionAttention, RunRecord, WeightsKind};

use crate::world::World;

pub(crate) const LORA: &str = r#"
[method]
name = "lora"
rank = 4
alpha = 6.0
dropout = 0.1
target_modules = ["query", "value", "word_embeddings"]
exclude_modules = []
layers_to_transform = []
rank_pattern = { "layer.1.attention.self.value" = 2 }
alpha_pattern = {}
use_rslora = true
use_dora = false
bias = "lora_only"
trains = ["head", "pooler", "layer_norm"]
"#;

pub(crate) const ADAPTER: &str = r#"
[method]
name = "adapter"
setup = "nsmc"
head = "classifier"
trains = ["head", "pooler"]
[method.adapter]
name = "nsmc"
config = "houlsby"
reduction_factor = 4
layer_reduction_factors = { 1 = 2 }
leave_out = []
non_linearity = "preset"
invertible = true
dropout = 0.1
"#;

/// Fuses the adapter with itself under another name; `{ko}` is a folder.
const FUSION: &str = r#"
[method]
name = "adapterfusion"
setup = "Fuse(ko, nsmc)"
adapter_setup = "nsmc"
fusion = "dynamic"
regularization = true
unfreeze_adapters = false
keep_head = false
head = "flex"
trains = ["head"]
[method.adapter]
name = "nsmc"
config = "houlsby"
reduction_factor = 8
layer_reduction_factors = {}
leave_out = []
non_linearity = "tanh"
invertible = false
dropout = 0.0
[method.adapter_training]
num_train_epochs = 2
learning_rate = 1e-2
[method.sources.ko]
from = "ko"
invertible_non_linearity = "preset"
path = "{ko}"
sha256 = "{sha256}"
"#;

/// AdapterFusion with the adapter of a folder.
pub(crate) fn fusion(world: &World, adapter: &str) -> String {
    let folder = world.path(adapter);
    let sha256 = WeightsKind::Adapter.sha256(&folder, &FileHashes::default()).unwrap().unwrap();
    FUSION.replace("{ko}", &folder.display().to_string()).replace("{sha256}", &sha256)
}

fn train(world: &World, method: &str, run: &str) -> RunRecord {
    let ran = world.train(&world.config_with(method), run);
    assert!(ran.success, "{}", ran.stderr);
    let record = RunRecord::read(&world.path(run).join("record.json")).unwrap();
    let results = record.results.as_ref().unwrap();
    assert!(results.trainable_parameters < results.total_parameters);
    // Another process finds the same.
    let ran = world.nsmc(&["evaluate", "--run", run, "--device", "cpu"]);
    assert!(ran.success, "{}", ran.stderr);
    assert!(ran.stdout.contains("come back to the last bit"), "{}", ran.stdout);
    record
}

fn export(world: &World, run: &str, format: &str, out: &str) {
    let mut arguments = vec!["export", "--run", run, "--out", out];
    // The first layout of a method need not be asked for.
    if matches!(format, "merged" | "loralib") {
        arguments.extend(["--format", format]);
    }
    let ran = world.nsmc(&arguments);
    assert!(ran.success, "{}", ran.stderr);
    assert!(ran.stdout.contains(out), "{}", ran.stdout);
}

#[test]
fn a_head_on_a_frozen_model_is_trained_and_exported_whole() {
    let world = World::new();
    let record = train(&world, "[method]\nname = \"head\"\ntrains = [\"head\"]\n", "run");
    // 16 features, two classes.
    assert_eq!(record.results.unwrap().trainable_parameters, 16 * 2 + 2);
    export(&world, "run", "hf", "hf");
    assert!(world.path("hf/model.safetensors").is_file());
    let ran = world.nsmc(&["export", "--run", "run", "--format", "peft", "--out", "peft"]);
    assert!(!ran.success && ran.stderr.contains("`head` can be written as hf"), "{}", ran.stderr);
}

#[test]
fn lora_is_trained_exported_and_taken_up_again() {
    let world = World::new();
    train(&world, LORA, "run");
    export(&world, "run", "peft", "peft");
    export(&world, "run", "loralib", "loralib");
    export(&world, "run", "merged", "merged");
    for file in
        ["peft/adapter_model.safetensors", "peft/base/model.safetensors", "loralib/lora.bin"]
    {
        assert!(world.path(file).is_file(), "{file}");
    }
    let config = world.read("peft/adapter_config.json");
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!((&config["r"], &config["use_rslora"]), (&4.into(), &true.into()));
    assert_eq!(config["bias"], "lora_only");
    // No folder of this machine: a name that is none on the hub.
    assert_eq!(config["base_model_name_or_path"], "./base");
    assert!(!world.read("peft/adapter_config.json").contains(world.path("").to_str().unwrap()));
    a_model_card_says_how_to_load_it_and_what_it_scored(&world);

    // The merged model is a whole one, and says what the run's model says.
    let frozen = World::with_model(&world.config(), &world.pretrained("merged"))
        .replace("learning_rate = 3e-3", "learning_rate = 1e-30")
        .replace("num_train_epochs = 6", "num_train_epochs = 1");
    let ran = world.train(&frozen, "again");
    assert!(ran.success, "{}", ran.stderr);
    let logits = |run: &str| -> Vec<f32> {
        let predictions = world.read(format!("{run}/predictions.tsv"));
        let fields = predictions.lines().skip(1).flat_map(|line| line.split('\t').skip(3));
        fields.map(|field| field.parse().unwrap()).collect()
    };
    for (run, again) in logits("run").into_iter().zip(logits("again")) {
        assert!((run - again).abs() < 1e-4, "{run} {again}");
    }

    // A run that starts from the exported weights and takes no step of note says the same, too: the
    // base is the same random one.
    let path = world.path("peft").display().to_string();
    let sha256 =
        WeightsKind::Peft.sha256(&world.path("peft"), &FileHashes::default()).unwrap().unwrap();
    let started = format!(
        "{LORA}[method.start]\nfrom = \"peft\"\ninvertible_non_linearity = \"preset\"\n\
         path = \"{path}\"\nsha256 = \"{sha256}\"\n"
    );
    let config = world
        .config_with(&started)
        .replace("learning_rate = 3e-3", "learning_rate = 1e-30")
        .replace("num_train_epochs = 6", "num_train_epochs = 1");
    let ran = world.train(&config, "started");
    assert!(ran.success, "{}", ran.stderr);
    for (run, started) in logits("run").into_iter().zip(logits("started")) {
        assert!((run - started).abs() < 1e-4, "{run} {started}");
    }

    // Other hyper-parameters than the file's are no start.
    let ran = world.train(&config.replace("rank = 4", "rank = 3"), "other");
    assert!(!ran.success && ran.stderr.contains("adapter_config.json: expected the layers, ranks"));

    let ran = world.nsmc(&["export", "--run", "run", "--format", "adapterhub", "--out", "no"]);
    assert!(!ran.success && ran.stderr.contains("peft, loralib, merged"), "{}", ran.stderr);
    let ran = world.nsmc(&["export", "--run", "run", "--format", "peft", "--out", "peft"]);
    assert!(!ran.success && ran.stderr.contains("is there already"), "{}", ran.stderr);
}

fn a_model_card_says_how_to_load_it_and_what_it_scored(world: &World) {
    let card = world.read("peft/README.md");
    let predictions = world.read("run/predictions.tsv");
    let rows = predictions.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
    let right = |row: &Vec<&str>| {
        let logit = |at: usize| row[at].parse::<f32>().unwrap();
        (logit(4) > logit(3)) == (row[1] == "1")
    };
    let rights: Vec<bool> = rows.map(|row| right(&row)).collect();
    let accuracy = rights.iter().filter(|right| **right).count() as f64 / rights.len() as f64;
    let rounded = (accuracy * 1e4).round() / 1e4;
    for said in [
        "---\nlibrary_name: \"peft\"\npipeline_tag: \"text-classification\"\n",
        &format!("{{\"type\":\"accuracy\",\"value\":{rounded}}}"),
        "import PeftModel\nfrom transformers import BertForSequenceClassification\n\n\
         model = PeftModel.from_pretrained(BertForSequenceClassification.from_pretrained(\"DIR/base\", \
         num_labels=2), \"DIR\")\n",
        "\ntokenizer = AutoTokenizer.from_pretrained(\"DIR\")\n",
        "= tokenizer(text, truncation=True, max_length=24, return_tensors=\"pt\")\n",
        "`adapter_config.json` calls the base `./base`, ",
        &format!("On {} test texts", rights.len()),
        "\nrank = 4\n",
    ] {
        assert!(card.contains(said), "{said}\n{card}");
    }
    let card = world.read("loralib/README.md");
    assert!(card.contains("AutoTokenizer.from_pretrained(\"DIR/base\")"), "{card}");
    assert!(!card.contains("adapter_config.json"), "{card}");
    let card = world.read("merged/README.md");
    assert!(card.contains("AutoTokenizer.from_pretrained(\"DIR\")"), "{card}");
    // It is no part of the model, and says nothing of what is not there.
    assert!(!card.contains(world.path("").to_str().unwrap()), "{card}");
    fs_err::remove_file(world.path("run/predictions.tsv")).unwrap();
    export(world, "run", "merged", "without-predictions");
    assert!(!world.read("without-predictions/README.md").contains("accuracy"));
    fs_err::write(world.path("run/predictions.tsv"), predictions).unwrap();
}

#[test]
fn an_adapter_and_its_fusion_are_trained_in_two_stages_and_exported() {
    let world = World::new();
    train(&world, ADAPTER, "adapter");
    export(&world, "adapter", "adapterhub", "hub");
    for file in ["hub/adapter_setup.json", "hub/nsmc/pytorch_adapter.bin", "hub/base/config.json"] {
        assert!(world.path(file).is_file(), "{file}");
    }

    let fusion = fusion(&world, "hub/nsmc");
    let record = train(&world, &fusion, "fusion");
    let results = record.results.unwrap();
    let stage = results.adapter_stage.unwrap();
    assert_eq!((stage.epochs.len(), results.epochs.len()), (2, 6));
    // 2 layers, 2 places, width 16; the head has 16 · 16 + 16 and 16 · 2 + 2.
    let head = 16 * 16 + 16 + 16 * 2 + 2;
    assert_eq!(stage.trainable_parameters, 2 * 2 * (2 * 16 * 2 + 2 + 16) + head);
    assert_eq!(results.trainable_parameters, 2 * 2 * (3 * 16 * 16 + 2 * 16) + head);

    let attention = world.read("fusion/fusion_attention.json");
    let attention: Vec<FusionAttention> = serde_json::from_str(&attention).unwrap();
    assert_eq!(attention.len(), 2 * 2);
    for attention in attention {
        assert_eq!(attention.adapters, ["ko", "nsmc"]);
        for mean in [&attention.mean, &attention.mean_first_token] {
            assert!((mean.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{mean:?}");
            assert!(mean.iter().all(|&weight| weight > 0.0 && weight < 1.0), "{mean:?}");
        }
    }
    let again = train(&world, &fusion, "again");
    assert_eq!(
        again.results.unwrap().predictions_sha256,
        results.predictions_sha256,
        "a run repeats itself"
    );
    export(&world, "fusion", "adapterhub", "fused");
    for file in ["fused/ko,nsmc/model_adapter_fusion.safetensors", "fused/nsmc/head_config.json"] {
        assert!(world.path(file).is_file(), "{file}");
    }

    // Unfrozen adapters train with the fusion; one that is asked for has to be there.
    let unfrozen = fusion.replace("unfreeze_adapters = false", "unfreeze_adapters = true");
    let unfrozen = train(&world, &unfrozen, "unfrozen").results.unwrap();
    assert!(unfrozen.trainable_parameters > results.trainable_parameters);
}
