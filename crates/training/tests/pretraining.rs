//! Whole pre-trainings on made-up reviews: they learn, and they go on where they were stopped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, TensorData};
use burn::train::Interrupter;
use nsmc_bert::{Activation, BertConfig, BertForMaskedLm, state_dict};
use nsmc_data::pretraining::{MaskingVocabulary, Packing, PretrainingLoader};
use nsmc_data::{BertTokenizer, EncodedReviews, Review};
use nsmc_experiment::{
    CorpusConfig, ModelConfig, PretrainingConfig, PretrainingEvaluation, PretrainingOptimizer,
    PretrainingRecipe, ScratchModel,
};
use nsmc_training::{
    Dashboard, Pretraining, PretrainingMetrics, TrainingError, check_length, pretrain,
    warmup_stable_decay,
};

/// Reviews in which each word says what the next one is.
fn reviews() -> Vec<Review> {
    let words = ["영화", "배우", "음악", "감독", "결말", "처음", "그냥", "정말", "최고", "최악"];
    let document = |id: usize| -> String {
        let text: Vec<&str> = (0..3 + id % 6).map(|word| words[(id + 3 * word) % 10]).collect();
        text.join(" ")
    };
    (0..120).map(|id| Review { id: id.to_string(), document: document(id), label: 0 }).collect()
}

fn config() -> PretrainingConfig {
    PretrainingConfig {
        seed: 3,
        numerics: 2,
        model: ModelConfig::Scratch(ScratchModel {
            vocab_size: 60,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 32,
            max_position_embeddings: 16,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
        }),
        adapter: None,
        corpus: CorpusConfig {
            archive: "archive.tar.gz".into(),
            test: "test.txt".into(),
            sha256: String::new(),
            held_out_fraction: 0.1,
            max_length: 16,
        },
        training: PretrainingRecipe {
            num_train_steps: 40,
            warmup_steps: 4,
            decay_steps: 10,
            tokens_per_batch: 100,
            length_window: 2,
            gradient_accumulation_steps: 2,
            optimizer: PretrainingOptimizer::Muon,
            learning_rate: 1e-2,
            adam_beta1: 0.9,
            adam_beta2: 0.98,
            adam_epsilon: 1e-6,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            mask_fraction: 0.15,
        },
        evaluation: PretrainingEvaluation { evaluate_every: 10, save_every: 7 },
    }
}

type Trained = (BTreeMap<String, TensorData>, Vec<PretrainingMetrics>);

/// Trains in `folder`; `stop` ends it after the first step.
fn train(config: &PretrainingConfig, folder: &Path, stop: bool) -> Result<Trained, TrainingError> {
    train_on(config, folder, stop, 0..100, 100..120)
}

fn train_on(
    config: &PretrainingConfig,
    folder: &Path,
    stop: bool,
    train: std::ops::Range<usize>,
    held_out: std::ops::Range<usize>,
) -> Result<Trained, TrainingError> {
    let reviews = reviews();
    let documents: Vec<&str> = reviews.iter().map(|review| review.document.as_str()).collect();
    let ModelConfig::Scratch(shape) = &config.model else { panic!() };
    let tokenizer = BertTokenizer::train(&documents, shape.vocab_size).unwrap();
    let encoded = Arc::new(EncodedReviews::encode(&reviews, &tokenizer, 16).unwrap());
    let ids: Arc<[String]> = reviews.into_iter().map(|review| review.id).collect();
    let loader = |indices: std::ops::Range<usize>| {
        let packing = Packing {
            seed: config.seed,
            tokens_per_batch: config.training.tokens_per_batch,
            window: config.training.length_window,
        };
        let vocabulary = MaskingVocabulary::new(tokenizer.vocab()).unwrap();
        let fraction = config.training.mask_fraction;
        let (ids, encoded) = (ids.clone(), encoded.clone());
        PretrainingLoader::new(ids, encoded, indices.collect(), vocabulary, fraction, packing)
            .unwrap()
    };
    let held_out = loader(held_out);
    let device = Device::flex();
    let bert = BertConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: shape.hidden_size,
        num_hidden_layers: shape.num_hidden_layers,
        num_attention_heads: shape.num_attention_heads,
        intermediate_size: shape.intermediate_size,
        max_position_embeddings: shape.max_position_embeddings,
        hidden_act: Activation::Gelu,
        hidden_dropout_prob: shape.hidden_dropout_prob,
        attention_probs_dropout_prob: shape.attention_probs_dropout_prob,
        classifier_dropout: None,
        type_vocab_size: 2,
        initializer_range: 0.02,
        layer_norm_eps: 1e-12,
        pad_token_id: Some(0),
        id2label: BTreeMap::new(),
    };
    let model = BertForMaskedLm::new(&bert, config.seed, &device.clone().autodiff());
    let interrupter = Interrupter::new();
    if stop {
        interrupter.stop(None);
    }
    let run = Pretraining {
        config: config.clone(),
        train: loader(train),
        held_out: (0..held_out.num_batches(0)).map(|batch| held_out.batch(0, batch)).collect(),
        dropout: shape.hidden_dropout_prob > 0.0,
        device,
        folder: folder.into(),
        dashboard: Dashboard::Silent,
        interrupter,
    };
    let (model, metrics) = pretrain(model, &run)?;
    Ok((state_dict(&model), metrics))
}

/// The files below a folder, with what is in them.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let bytes = fs_err::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// What does not depend on the clock.
fn figures(metrics: &[PretrainingMetrics]) -> Vec<(usize, usize, u64, u64)> {
    let bits = |line: &PretrainingMetrics| {
        (line.step, line.tokens, line.train_loss.to_bits(), line.held_out_loss.to_bits())
    };
    metrics.iter().map(bits).collect()
}

#[test]
fn a_training_that_is_stopped_again_and_again_ends_like_one_that_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, metrics) = train(&config(), folder.path(), false).unwrap();
    assert_eq!(metrics.len(), 4);
    assert!(metrics[3].train_loss < 0.8 * metrics[0].train_loss, "{metrics:?}");
    assert!(metrics[3].held_out_loss < metrics[0].held_out_loss, "{metrics:?}");

    let stopped = tempfile::tempdir().unwrap();
    for _ in 0..9 {
        let error = train(&config(), stopped.path(), true).unwrap_err();
        assert!(matches!(error, TrainingError::Interrupted { .. }), "{error}");
    }
    let checkpoints = || {
        let folders = fs_err::read_dir(stopped.path().join("checkpoint")).unwrap();
        let mut names: Vec<String> =
            folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(checkpoints(), ["step-8", "step-9"]);

    // The newest is torn: the one before serves.
    let torn = stopped.path().join("checkpoint/step-9/weights.bpk");
    let bytes = fs_err::read(&torn).unwrap();
    fs_err::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
    let (resumed, again) = train(&config(), stopped.path(), false).unwrap();
    assert_eq!(resumed, weights);
    assert_eq!(figures(&again), figures(&metrics));
    let lines = fs_err::read_to_string(stopped.path().join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 4);
}

#[test]
fn a_longer_training_goes_on_from_before_the_decay() {
    let long = PretrainingConfig {
        training: PretrainingRecipe { num_train_steps: 50, ..config().training },
        ..config()
    };
    let whole = tempfile::tempdir().unwrap();
    let (weights, metrics) = train(&long, whole.path(), false).unwrap();
    let grown = tempfile::tempdir().unwrap();
    train(&config(), grown.path(), false).unwrap();
    let (resumed, again) = train(&long, grown.path(), false).unwrap();
    assert_eq!(resumed, weights);
    assert_eq!(figures(&again)[3..], figures(&metrics)[3..]);

    // A shorter one would begin anew: it is refused instead, and what is there stays.
    let training = PretrainingRecipe { num_train_steps: 30, ..config().training };
    let short = PretrainingConfig { training, ..config() };
    let there = contents(grown.path());
    for message in [
        check_length(grown.path(), &short).unwrap_err().to_string(),
        train(&short, grown.path(), false).unwrap_err().to_string(),
    ] {
        assert!(message.contains("of a training of 50 steps"), "{message}");
        assert!(message.contains("give another directory with `--out`"), "{message}");
    }
    assert!(contents(grown.path()) == there, "nothing is lost");
    check_length(grown.path(), &long).unwrap();

    // Another recipe does not go on from it.
    let other = PretrainingConfig { seed: 4, ..long };
    let message = train(&other, grown.path(), false).unwrap_err().to_string();
    assert!(message.contains("another configuration"), "{message}");
}

#[test]
fn without_reviews_to_train_on_or_to_measure_by_it_does_not_begin() {
    let folder = tempfile::tempdir().unwrap();
    train(&config(), folder.path(), true).unwrap_err();
    // What is there already does not matter.
    let other = PretrainingConfig { seed: 4, ..config() };
    for (training, held_out) in [(0..0, 100..120), (0..100, 0..0)] {
        let error = train_on(&other, folder.path(), false, training, held_out).unwrap_err();
        assert!(error.to_string().contains("`corpus.held_out_fraction`"), "{error}");
    }
}

#[test]
fn with_dropout_it_resumes_as_exactly() {
    let mut config = config();
    let ModelConfig::Scratch(shape) = &mut config.model else { panic!() };
    shape.hidden_dropout_prob = 0.1;
    shape.attention_probs_dropout_prob = 0.1;
    config.training.num_train_steps = 12;
    let whole = tempfile::tempdir().unwrap();
    let (weights, _) = train(&config, whole.path(), false).unwrap();
    let stopped = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        train(&config, stopped.path(), true).unwrap_err();
    }
    assert_eq!(train(&config, stopped.path(), false).unwrap().0, weights);
}

#[test]
fn a_step_of_two_batches_is_a_step_of_their_mean() {
    // One batch of 200 tokens holds the reviews of two of 100; both are means over masked tokens.
    let one_step = |tokens_per_batch, gradient_accumulation_steps| {
        let mut config = config();
        config.training = PretrainingRecipe {
            num_train_steps: 1,
            warmup_steps: 0,
            decay_steps: 0,
            tokens_per_batch,
            gradient_accumulation_steps,
            length_window: 0,
            ..config.training
        };
        let folder = tempfile::tempdir().unwrap();
        train(&config, folder.path(), false).unwrap()
    };
    let (one, two) = (one_step(1000, 1), one_step(100, 8));
    // All reviews either way.
    assert_eq!(one.1[0].tokens, two.1[0].tokens);
    assert!((one.1[0].train_loss - two.1[0].train_loss).abs() < 1e-5, "{one:?} {two:?}");
    assert!((one.1[0].held_out_loss - two.1[0].held_out_loss).abs() < 1e-4);
}

/// `get_wsd_schedule(optimizer, 2, 3, num_stable_steps=3, decay_type="linear")` of transformers
/// 4.57.6 at a learning rate of 1.
#[test]
fn rates_are_those_of_transformers() {
    let recipe = PretrainingRecipe {
        num_train_steps: 8,
        warmup_steps: 2,
        decay_steps: 3,
        learning_rate: 1.0,
        ..config().training
    };
    let expected = [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 2.0 / 3.0, 1.0 / 3.0];
    for (step, expected) in expected.into_iter().enumerate() {
        let rate = warmup_stable_decay(&recipe, step);
        assert!((rate - expected).abs() < 1e-12, "step {step}: {rate}");
    }
    // A decay longer than the training has begun before it.
    let recipe =
        PretrainingRecipe { num_train_steps: 2, warmup_steps: 0, decay_steps: 4, ..recipe };
    let rates = [0, 1, 2].map(|step| warmup_stable_decay(&recipe, step));
    assert!(
        rates.into_iter().zip([0.5, 0.25, 0.0]).all(|(a, b)| (a - b).abs() < 1e-12),
        "{rates:?}"
    );
}
