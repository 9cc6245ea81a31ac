//! Whole trainings on made-up reviews.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::backend::Flex;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::Interrupter;
use nsmc_bert::{Activation, BertConfig, BertForSequenceClassification, state_dict};
use nsmc_data::{BertTokenizer, EncodedReviews, Order, Review, ReviewLoader, epoch_order};
use nsmc_experiment::{Optimizer, Precision, Selection, TrainingConfig};
use nsmc_peft::{PeftModel, Trains};
use nsmc_training::{Dashboard, Fit, Fitted, TrainingError, fit, predict};

/// burn's generator is one per process: trainings in it take turns.
static TURN: Mutex<()> = Mutex::new(());

/// 150 reviews of three to nine words; a good word makes one positive, a bad one negative.
fn reviews() -> Vec<Review> {
    let filler = ["영화", "배우", "음악", "감독", "결말", "처음", "그냥", "정말"];
    (0..150usize)
        .map(|id| {
            let label = id * 7 % 2;
            let mut words: Vec<&str> =
                (0..2 + id % 7).map(|word| filler[(id * 31 + word * 17 + id / 5) % 8]).collect();
            words.insert(id % words.len(), if label == 1 { "최고" } else { "최악" });
            Review { id: id.to_string(), document: words.join(" "), label }
        })
        .collect()
}

fn config(tokenizer: &BertTokenizer, dropout: f64) -> BertConfig {
    BertConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 16,
        hidden_act: Activation::Gelu,
        hidden_dropout_prob: dropout,
        attention_probs_dropout_prob: dropout,
        classifier_dropout: None,
        type_vocab_size: 2,
        initializer_range: 0.1,
        layer_norm_eps: 1e-12,
        pad_token_id: Some(0),
        id2label: BTreeMap::from([(0, "negative".into()), (1, "positive".into())]),
    }
}

fn recipe() -> TrainingConfig {
    TrainingConfig {
        num_train_epochs: 3,
        train_batch_size: 8,
        learning_rate: 3e-3,
        warmup_ratio: 0.1,
        optimizer: Optimizer::AdamwTorch,
        adam_beta1: 0.9,
        adam_beta2: 0.999,
        adam_epsilon: 1e-8,
        weight_decay: 0.01,
        max_grad_norm: 1.0,
        precision: Precision::default(),
        selection: Selection::Last,
        save_steps: 5,
    }
}

struct Trained {
    /// The weights before the first step.
    initial: BTreeMap<String, TensorData>,
    fitted: Result<Fitted, TrainingError>,
    last: Option<BTreeMap<String, TensorData>>,
    logits: Vec<(usize, Vec<f32>)>,
    /// Where its parameters lay in memory before it, and when an epoch's model was saved.
    places: Vec<Vec<usize>>,
    folder: tempfile::TempDir,
}

/// Where the parameters of a model lie in memory.
fn places(model: &BertForSequenceClassification) -> Vec<usize> {
    struct Places(Vec<usize>);
    impl ModuleVisitor for Places {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            let tensor = parameter.val().without_autodiff().try_into_primitive::<Flex>().unwrap();
            self.0.push(tensor.bytes().as_ptr().addr());
        }
    }
    let mut places = Places(Vec::new());
    model.visit(&mut places);
    places.0
}

/// When a training is asked to stop.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Never,
    /// Before it begins: it ends after a step or, if there is none left in its epoch, before that is
    /// validated.
    AtOnce,
    /// When an epoch's model is saved.
    AfterAnEpoch,
}

fn train(seed: u64, recipe: &TrainingConfig) -> Trained {
    train_in(tempfile::tempdir().unwrap(), seed, recipe, Stop::Never, 1)
}

/// Trains in a folder, each batch on so many devices. With more than one there is no dropout: what it
/// draws depends on which device comes first.
fn train_in(
    folder: tempfile::TempDir,
    seed: u64,
    recipe: &TrainingConfig,
    stop: Stop,
    devices: usize,
) -> Trained {
    train_with(folder, seed, recipe, stop, devices, Some(50), Trains::everything())
}

fn train_with(
    folder: tempfile::TempDir,
    seed: u64,
    recipe: &TrainingConfig,
    stop: Stop,
    devices: usize,
    validated: Option<usize>,
    trains: Trains,
) -> Trained {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let reviews = reviews();
    let documents: Vec<&str> = reviews.iter().map(|review| review.document.as_str()).collect();
    let tokenizer = BertTokenizer::train(&documents, 80).unwrap();
    let encoded = Arc::new(EncodedReviews::encode(&reviews, &tokenizer, 16).unwrap());
    let reviews = Arc::new(reviews);
    let device = Device::flex();
    let loader = |indices: std::ops::Range<usize>, order| {
        let (reviews, encoded, device) = (reviews.clone(), encoded.clone(), device.clone());
        ReviewLoader::new(
            reviews,
            encoded,
            indices.collect(),
            recipe.train_batch_size,
            order,
            device,
        )
    };
    let config = config(&tokenizer, if devices == 1 { 0.1 } else { 0.0 });
    let base = BertForSequenceClassification::new(&config, seed, &device.clone().autodiff());
    let initial = state_dict(&base);
    let saved_config = config.clone();
    let interrupter = Interrupter::new();
    if stop == Stop::AtOnce {
        interrupter.stop(None);
    }
    let stopping = interrupter.clone();
    let seen = Arc::new(Mutex::new(vec![places(&base)]));
    let sees = seen.clone();
    let fitted = fit(
        PeftModel::new(base, &config).train_only(trains),
        Fit {
            config: recipe.clone(),
            seed,
            train: loader(0..100, Order::Shuffled { seed }),
            validation: validated.map(|reviews| loader(100..100 + reviews, Order::ByLength)),
            num_labels: 2,
            device: device.clone(),
            further_devices: vec![device.clone(); devices - 1],
            folder: folder.path().into(),
            identity: "test".into(),
            next_stage: None,
            dashboard: Dashboard::Silent,
            interrupter,
        },
        move |model, folder| {
            if stop == Stop::AfterAnEpoch {
                stopping.stop(None);
            }
            sees.lock().unwrap().push(places(&model.base));
            Ok(model.base.save_pretrained(folder, &saved_config)?)
        },
    );
    let checkpoint = folder.path().join("checkpoint/last");
    let places = std::mem::take(&mut *seen.lock().unwrap());
    let mut trained = Trained { initial, fitted, last: None, logits: Vec::new(), places, folder };
    if trained.fitted.is_ok() {
        let base = load(&checkpoint, &config);
        trained.last = Some(state_dict(&base));
        let validation = loader(100..150, Order::ByLength);
        let model = PeftModel::new(base, &config).valid();
        trained.logits = predict(&model, &validation, &device, |_| {}).unwrap().logits;
    }
    trained
}

fn load(folder: &Path, config: &BertConfig) -> BertForSequenceClassification {
    BertForSequenceClassification::from_pretrained(folder, config, 0, &Device::flex()).unwrap()
}

#[test]
fn of_a_trained_model_all_but_biases_and_layer_norm_have_decayed() {
    // With such an epsilon Adam moves nothing: what is left of a step is the decay.
    let (rate, epsilon, decay) = (1e-2, 1e12, 0.5);
    for optimizer in [Optimizer::AdamwTorch, Optimizer::AdamwHf] {
        let recipe = TrainingConfig {
            optimizer,
            learning_rate: rate,
            warmup_ratio: 0.0,
            adam_epsilon: epsilon,
            weight_decay: decay,
            ..recipe()
        };
        let trained = train(1, &recipe);
        let steps = trained.fitted.as_ref().unwrap().epochs.iter().map(|epoch| epoch.steps).sum();
        assert_eq!(steps, 39);
        let kept: f64 = (0..steps)
            .map(|step| 1.0 - rate * (1.0 - step as f64 / steps as f64) * decay)
            .product();
        assert!(kept < 0.95, "{kept}");
        let floats = |tensor: &TensorData| tensor.clone().try_to_vec::<f32>().unwrap();
        let (mut decayed, mut stayed) = (0, 0);
        for (name, last) in trained.last.as_ref().unwrap() {
            let stays = name.ends_with(".bias") || name.contains("LayerNorm");
            *if stays { &mut stayed } else { &mut decayed } += 1;
            let kept = if stays { 1.0 } else { kept as f32 };
            for (first, last) in floats(&trained.initial[name]).iter().zip(floats(last)) {
                let error = (last - first * kept).abs();
                assert!(error < 1e-5, "{optimizer:?} {name}: {first} became {last}");
            }
        }
        // Three embeddings, six matrices a layer, pooler and classifier; a norm more than two a layer.
        assert_eq!((decayed, stayed), (3 + 12 + 2, 12 + 2 + 2 * 5));
    }
}

#[test]
fn the_same_seed_gives_the_same_losses_and_weights_to_the_last_bit() {
    let (first, again, other) = (train(1, &recipe()), train(1, &recipe()), train(2, &recipe()));
    let losses = |trained: &Trained| -> Vec<(u64, u64)> {
        let epochs = &trained.fitted.as_ref().unwrap().epochs;
        epochs
            .iter()
            .map(|e| (e.train_loss.to_bits(), e.validation_loss.unwrap().to_bits()))
            .collect()
    };
    assert_eq!(losses(&first), losses(&again));
    assert_eq!(first.last, again.last);
    assert_eq!(first.logits, again.logits);
    let differing = losses(&first).iter().zip(losses(&other)).filter(|(a, b)| **a != *b).count();
    assert_eq!(differing, 3);
}

#[test]
fn training_learns_and_keeps_what_it_found() {
    let trained =
        train(3, &TrainingConfig { num_train_epochs: 8, learning_rate: 1e-2, ..recipe() });
    let fitted = trained.fitted.unwrap();
    assert_eq!(fitted.epochs.len(), 8);
    assert!(fitted.epochs[7].train_loss < 0.5 * fitted.epochs[0].train_loss, "{fitted:?}");
    let accuracy = fitted.epochs.iter().map(|epoch| epoch.validation_accuracy.unwrap());
    let best = accuracy.clone().fold(0.0, f64::max);
    assert!(best > 0.9, "{fitted:?}");
    // The earliest of equals.
    let expected = accuracy.clone().position(|accuracy| accuracy >= best).unwrap() + 1;
    assert_eq!(fitted.best_epoch, Some(expected));
    for epoch in &fitted.epochs {
        assert_eq!(epoch.steps, 13);
        assert!(epoch.train_seconds > 0.0 && epoch.tokens > 500);
    }

    // The last epoch's accuracy is that of the model that was saved.
    let right = trained
        .logits
        .iter()
        .filter(|(review, logits)| usize::from(logits[1] > logits[0]) == reviews()[*review].label);
    let share = right.count() as f64 / trained.logits.len() as f64;
    assert!((share - fitted.epochs[7].validation_accuracy.unwrap()).abs() < 1e-9);

    let lines = fs_err::read_to_string(trained.folder.path().join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 8);
    let best_folder = trained.folder.path().join("checkpoint/best/model.safetensors");
    assert!(best_folder.is_file());
}

#[test]
fn a_diverging_training_says_where_and_leaves_no_checkpoint_of_it() {
    // Without warm-up, one step of this size puts the weights beyond what their products can hold.
    let trained = train(1, &TrainingConfig { learning_rate: 1e30, warmup_ratio: 0.0, ..recipe() });
    let Err(error @ TrainingError::Diverged { step, reviews, .. }) = &trained.fitted else {
        panic!("{:?}", trained.fitted)
    };
    // The loss is read a step late; the reviews are those of the step all the same.
    let ids: Vec<String> = (0..100).map(|id| id.to_string()).collect();
    let order = epoch_order(ids.iter().map(String::as_str), 1, 0);
    let batch = order[(step - 1) * 8..step * 8].iter().map(|&review| ids[review].clone());
    assert!(*step > 1 && batch.eq(reviews.iter().cloned()), "{step}: {reviews:?}");
    let message = error.to_string();
    assert!(message.contains("learning rate 9.") && message.contains("gradient norm"));
    assert!(message.contains(&format!("reviews {}; ", reviews.join(", "))), "{message}");
    assert!(message.contains("of 39 (epoch 1)") && message.contains("learning_rate"), "{message}");
    assert!(!trained.folder.path().join("checkpoint").exists());
}

#[test]
fn a_checkpoint_that_lacks_a_parameter_which_trains_is_refused() {
    let head = Trains { head: true, ..Trains::nothing() };
    let folder = tempfile::tempdir().unwrap();
    let stopped = train_with(folder, 4, &recipe(), Stop::AtOnce, 1, Some(50), head);
    assert!(matches!(stopped.fitted, Err(TrainingError::Interrupted { .. })));
    let other = train_in(stopped.folder, 4, &recipe(), Stop::Never, 1);
    let error = other.fitted.unwrap_err().to_string();
    assert!(
        error.ends_with("expected 41 parameters that train, found 2 in its checkpoint"),
        "{error}"
    );
}

#[test]
fn a_training_that_is_stopped_again_and_again_ends_like_one_that_is_not() {
    let whole = train(4, &recipe());
    let expected = whole.fitted.as_ref().unwrap();
    // 13 steps an epoch: one per stretch.
    let mut folder = tempfile::tempdir().unwrap();
    let stopped = |folder, stop| {
        let stopped = train_in(folder, 4, &recipe(), stop, 1);
        let error = stopped.fitted.unwrap_err();
        assert!(matches!(error, TrainingError::Interrupted { .. }), "{error}");
        stopped.folder
    };
    for _ in 0..13 {
        folder = stopped(folder, Stop::AtOnce);
    }
    let last_step = folder.path().join("resume/step-13/state.toml");
    let state = fs_err::read_to_string(&last_step).unwrap();
    // A validation that is stopped is not kept, and done again.
    folder = stopped(folder, Stop::AtOnce);
    assert_eq!(fs_err::read_to_string(&last_step).unwrap(), state);
    assert!(!folder.path().join("metrics.jsonl").exists());
    for stop in [Stop::AfterAnEpoch, Stop::AtOnce, Stop::AtOnce] {
        folder = stopped(folder, stop);
    }
    assert!(folder.path().join("resume/step-15").is_dir());
    assert!(folder.path().join("checkpoint/best").is_dir());

    // The newest is torn: the one before serves.
    let torn = folder.path().join("resume/step-15/optimizer.bpk");
    fs_err::write(&torn, &fs_err::read(&torn).unwrap()[..1000]).unwrap();
    let resumed = train_in(folder, 4, &recipe(), Stop::Never, 1);
    let fitted = resumed.fitted.unwrap();
    assert_eq!(resumed.last, whole.last);
    assert_eq!(resumed.logits, whole.logits);
    assert_eq!(fitted.best_epoch, expected.best_epoch);
    let losses = |fitted: &Fitted| -> Vec<(u64, Option<u64>)> {
        let bits = |epoch: &nsmc_experiment::EpochRecord| {
            (epoch.train_loss.to_bits(), epoch.validation_loss.map(f64::to_bits))
        };
        fitted.epochs.iter().map(bits).collect()
    };
    assert_eq!(losses(&fitted), losses(expected));
    // Of the first epoch's steps each was the first of its process, and none is timed.
    assert!(fitted.epochs.iter().all(|epoch| epoch.train_seconds > 1e-4), "{fitted:?}");
    let lines = fs_err::read_to_string(resumed.folder.path().join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 3);

    // It is done, and is not done again.
    assert!(!resumed.folder.path().join("resume").exists());
    let again = train_in(resumed.folder, 4, &recipe(), Stop::AtOnce, 1);
    assert_eq!(losses(&again.fitted.unwrap()), losses(expected));
}

#[test]
fn a_training_on_several_devices_goes_on_where_it_was_stopped() {
    let train = |folder, stop| train_in(folder, 5, &recipe(), stop, 3);
    let whole = train(tempfile::tempdir().unwrap(), Stop::Never);
    let mut folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let stopped = train(folder, Stop::AtOnce);
        assert!(matches!(stopped.fitted, Err(TrainingError::Interrupted { .. })));
        folder = stopped.folder;
    }
    let resumed = train(folder, Stop::Never);
    assert!(whole.last.is_some() && resumed.last == whole.last);
    assert_eq!(resumed.logits, whole.logits);
}

#[test]
fn the_best_epoch_of_a_training_without_validation_is_refused_before_its_first_step() {
    // A validation split without a review is none.
    for validated in [None, Some(0)] {
        let train = |selection| {
            let recipe = TrainingConfig { selection, ..recipe() };
            train_with(
                tempfile::tempdir().unwrap(),
                6,
                &recipe,
                Stop::Never,
                1,
                validated,
                Trains::everything(),
            )
        };
        let refused = train(Selection::Best);
        let message = refused.fitted.unwrap_err().to_string();
        assert!(message.contains("`data.validation_fraction`"), "{message}");
        assert_eq!(fs_err::read_dir(refused.folder.path()).unwrap().count(), 0);
        let fitted = train(Selection::Last).fitted.unwrap();
        assert_eq!((fitted.best_epoch, fitted.epochs[2].validation_loss), (None, None));
    }
}

#[test]
fn nothing_holds_the_weights_that_a_training_begins_with() {
    // Of weights that something else holds, a step makes others beside them.
    let recipe = TrainingConfig { num_train_epochs: 1, save_steps: 0, ..recipe() };
    let trained = train_with(
        tempfile::tempdir().unwrap(),
        7,
        &recipe,
        Stop::Never,
        1,
        None,
        Trains::everything(),
    );
    trained.fitted.unwrap();
    let [before, after] = trained.places.as_slice() else { panic!("{:?}", trained.places) };
    assert!(before.len() > 30 && before == after, "{before:?} {after:?}");
}
