//! Fabricated runs. Nothing here was trained: the figures are made up, so that a test knows them.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot write its data fails")]

use std::fmt::Write;
use std::path::Path;

use nsmc_experiment::{
    EpochRecord, ExperimentConfig, FusionAttention, FusionPlace, MethodKind, RunRecord, RunResults,
    RunStatus, StageRecord, sha256_hex,
};
use serde_json::{Value, json};

/// Test reviews of a fabricated run.
pub(crate) const REVIEWS: usize = 2000;

/// A configuration of the method `vanilla` with the paper's recipe.
pub(crate) fn config(recipe: &str, train_size: usize, seed: u64) -> ExperimentConfig {
    let file = json!({ "path": "reviews.txt", "sha256": "0".repeat(64), "class_counts": [] });
    parse(json!({
        "seed": seed,
        "recipe": recipe,
        "model": {
            "source": "pretrained",
            "name": "fabricated/model",
            "revision": "fab1234567",
            "path": "/place/of/this/machine"
        },
        "data": {
            "dataset": "fabricated reviews",
            "id_column": "id",
            "text_column": "document",
            "label_column": "label",
            "labels": ["0", "1"],
            "label_names": ["negative", "positive"],
            "delimiter": "\t",
            "quoting": false,
            "train_size": train_size,
            "test_size": REVIEWS,
            "validation_fraction": 0.1,
            "max_length": 128,
            "train": file,
            "test": file
        },
        "method": { "name": "vanilla" },
        "training": {
            "num_train_epochs": 3,
            "train_batch_size": 32,
            "learning_rate": 2e-5,
            "warmup_ratio": 0.0,
            "optimizer": "adamw_hf",
            "adam_beta1": 0.9,
            "adam_beta2": 0.999,
            "adam_epsilon": 1e-8,
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "selection": "last",
            "save_steps": 500
        },
        "evaluation": { "eval_batch_size": 64, "metric_batch_size": 32 }
    }))
}

/// The same with LoRA, its head frozen.
pub(crate) fn lora(mut config: ExperimentConfig, rank: usize, alpha: f64) -> ExperimentConfig {
    config.method = parse(json!({
        "name": "lora",
        "rank": rank,
        "alpha": alpha,
        "dropout": 0.0,
        "target_modules": ["query", "value"],
        "exclude_modules": [],
        "layers_to_transform": [],
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": false,
        "use_dora": false,
        "bias": "none",
        "trains": []
    }));
    config
}

/// The same with LoRA's head trained.
pub(crate) fn with_head(mut config: ExperimentConfig) -> ExperimentConfig {
    let mut method = serde_json::to_value(&config.method).unwrap();
    method["trains"] = json!(["head"]);
    config.method = parse(method);
    config
}

/// The same with AdapterFusion.
pub(crate) fn fusion(mut config: ExperimentConfig) -> ExperimentConfig {
    config.method = parse(json!({
        "name": "adapterfusion",
        "setup": "Fuse(ko, nsmc)",
        "adapter_setup": "nsmc",
        "fusion": "dynamic",
        "regularization": false,
        "unfreeze_adapters": false,
        "keep_head": false,
        "head": "classifier",
        "trains": ["head"],
        "adapter": {
            "name": "nsmc",
            "config": "pfeiffer",
            "reduction_factor": 16.0,
            "layer_reduction_factors": {},
            "leave_out": [],
            "non_linearity": "preset",
            "invertible": false,
            "dropout": 0.0
        },
        "adapter_training": { "num_train_epochs": 2, "learning_rate": 2e-5 },
        "sources": {
            "ko": {
                "from": "models/ko",
                "invertible_non_linearity": "preset",
                "path": "/place/of/this/machine/ko",
                "sha256": "0".repeat(64)
            }
        }
    }));
    config
}

/// The same with the classifier alone, on a frozen model.
pub(crate) fn head(mut config: ExperimentConfig) -> ExperimentConfig {
    config.method = parse(json!({ "name": "head", "trains": ["head"] }));
    config
}

/// The same as a baseline.
pub(crate) fn majority(mut config: ExperimentConfig) -> ExperimentConfig {
    config.method = parse(json!({ "name": "majority" }));
    config.recipe = String::new();
    config
}

/// The same as the other baseline.
pub(crate) fn tfidf(config: ExperimentConfig) -> ExperimentConfig {
    let mut config = majority(config);
    config.method = parse(json!({
        "name": "tfidf",
        "ngram_range": [1, 4],
        "min_df": 2,
        "sublinear_tf": true,
        "c": 3.0,
        "tol": 1e-4,
        "max_iter": 500
    }));
    config
}

/// Writes the directory of a run that reached about `accuracy`, in `runs`; an accuracy of 0.5 is of a
/// run that answers always the same.
pub(crate) fn run(runs: &Path, config: &ExperimentConfig, accuracy: f64, epoch_seconds: f64) {
    let id = config.run_id();
    let folder = runs.join(&id);
    fs_err::create_dir_all(&folder).unwrap();
    let mut predictions = String::from("id\tlabel\tin_training\tlogit_0\tlogit_1\n");
    let (mut any, mut right_ones) = (0.0_f64, 0);
    for review in 0..REVIEWS {
        let label = review % 2;
        // How hard a review is, the same for all runs, and a part of luck of the run's own.
        let hard = share(&format!("hard {review}"));
        let luck = share(&format!("{id} {review}")) - 0.5;
        let margin = accuracy - (hard + 0.06 * luck);
        let class = if (accuracy - 0.5).abs() < 1e-9 {
            1
        } else if margin > 0.0 {
            label
        } else {
            1 - label
        };
        right_ones += usize::from(class == label);
        let logit = (margin.abs() * 6.0 + 0.05) * if class == 1 { 1.0 } else { -1.0 };
        any += logit;
        let seen = usize::from(review % 50 == 0);
        writeln!(predictions, "{}\t{label}\t{seen}\t0\t{logit:.4}", 9_000_000 + review).unwrap();
    }
    assert!(any.is_finite() && right_ones > 0);
    fs_err::write(folder.join("predictions.tsv"), &predictions).unwrap();
    let epoch = |epoch: usize| EpochRecord {
        epoch,
        steps: 100,
        train_seconds: epoch_seconds,
        tokens: 10_000,
        train_loss: 0.7 - 0.12 * accuracy * epoch as f64,
        validation_loss: Some(0.69 - 0.08 * accuracy * epoch as f64),
        validation_accuracy: Some(accuracy - 0.05 / epoch as f64),
    };
    let epochs: Vec<EpochRecord> = (1..=config.training.num_train_epochs).map(epoch).collect();
    let fuses = config.method.kind() == MethodKind::AdapterFusion;
    let trainable = match config.method.kind() {
        MethodKind::Vanilla => 5_307_138,
        MethodKind::AdapterFusion => 854_786,
        _ => 361_218,
    };
    let results = RunResults {
        trainable_parameters: trainable,
        total_parameters: 5_307_138,
        train_reviews: 900,
        validation_reviews: 100,
        test_reviews: REVIEWS,
        truncated_reviews: 0,
        adapter_stage: fuses.then(|| StageRecord {
            trainable_parameters: 100_162,
            epochs: epochs.clone(),
            taken_epoch: 2,
        }),
        steps: 300,
        epochs,
        tested_epoch: 3,
        test_seconds: 2.0,
        epoch_seconds_alone: None,
        peak_memory_mib: Some(250.0),
        predictions_sha256: sha256_hex(predictions.as_bytes()),
    };
    record(config, &RunStatus::Success, Some(&results)).write(&folder.join("record.json")).unwrap();
    if fuses {
        let layers: Vec<FusionAttention> = (0..4)
            .map(|layer| FusionAttention {
                adapters: vec!["ko".into(), "nsmc".into()],
                layer,
                place: FusionPlace::Output,
                mean: vec![0.2 + 0.05 * layer as f64, 0.8 - 0.05 * layer as f64],
                mean_first_token: vec![0.9 - 0.2 * layer as f64, 0.1 + 0.2 * layer as f64],
            })
            .collect();
        let text = serde_json::to_string(&layers).unwrap();
        fs_err::write(folder.join("fusion_attention.json"), text).unwrap();
    }
}

/// Puts other predictions into the directory of a run, and into its record that they are its own.
pub(crate) fn predicts(runs: &Path, config: &ExperimentConfig, predictions: &str) {
    let folder = runs.join(config.run_id());
    fs_err::write(folder.join("predictions.tsv"), predictions).unwrap();
    let path = folder.join("record.json");
    let mut record = RunRecord::read(&path).unwrap();
    let results = record.results.as_mut().unwrap();
    results.test_reviews = predictions.lines().count() - 1;
    results.predictions_sha256 = sha256_hex(predictions.as_bytes());
    record.write(&path).unwrap();
}

/// Writes the directory of a run that failed.
pub(crate) fn failed(runs: &Path, config: &ExperimentConfig, error: &str) {
    let folder = runs.join(config.run_id());
    fs_err::create_dir_all(&folder).unwrap();
    let status = RunStatus::Failed { error: error.into() };
    record(config, &status, None).write(&folder.join("record.json")).unwrap();
}

/// Two recipes of three methods at two sizes with two seeds each, and the paper's LoRA with one key
/// changed at a time. LoRA collapses with the paper's recipe, and alpha is why; with tuned rates no
/// method is ahead. One run failed, one is stuck at chance.
pub(crate) fn grid(runs: &Path) -> Vec<ExperimentConfig> {
    let mut configs = Vec::new();
    for seed in [0, 1] {
        for (size, less) in [(1000, 0.0), (500, 0.03)] {
            let jitter = 0.004 * seed as f64;
            let mut add = |config: ExperimentConfig, accuracy: f64, seconds: f64| {
                run(runs, &config, accuracy - less + jitter, seconds);
                configs.push(config);
            };
            let paper = config("paper", size, seed);
            let mut tuned = config("tuned", size, seed);
            tuned.training.learning_rate = 3e-4;
            let seconds = size as f64 / 20.0;
            add(paper.clone(), 0.86, seconds);
            add(fusion(paper.clone()), 0.80, 0.73 * seconds);
            add(lora(paper.clone(), 64, 1.0), 0.62, 0.65 * seconds);
            add(tuned.clone(), 0.870, seconds);
            add(fusion(tuned.clone()), 0.869, 0.73 * seconds);
            add(with_head(lora(tuned, 64, 128.0)), 0.868, 0.65 * seconds);
            if size == 1000 {
                let named = |recipe: &str| {
                    lora(ExperimentConfig { recipe: recipe.into(), ..paper.clone() }, 64, 1.0)
                };
                let alpha = lora(named("lora-alpha"), 64, 128.0);
                add(alpha, 0.82, 0.65 * seconds);
                add(with_head(named("lora-head")), 0.64, 0.65 * seconds);
                let mut rate = named("lora-rate");
                rate.training.learning_rate = 1e-3;
                add(rate, if seed == 0 { 0.5 } else { 0.68 }, 0.65 * seconds);
            }
        }
    }
    let broken = lora(config("paper", 1000, 2), 64, 1.0);
    failed(runs, &broken, "out of memory, as the test says");
    configs.push(broken);
    configs
}

fn record(
    config: &ExperimentConfig,
    status: &RunStatus,
    results: Option<&RunResults>,
) -> RunRecord {
    let record = json!({
        "run_id": config.run_id(),
        "identity": config.identity(),
        "status": status,
        "started": 1_700_000_000,
        "total_seconds": 400.0,
        "device": "no device: fabricated for a test",
        "threads": 2,
        "version": "0.1.0",
        "results": results,
        "config": config
    });
    parse(record)
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A share from 0 to 1 that depends on `text` alone: FNV-1a, its bits mixed as SplitMix64 does.
fn share(text: &str) -> f64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64
}
