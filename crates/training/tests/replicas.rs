//! Steps whose batches several devices share, beside those of one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use burn::data::dataloader::batcher::Batcher;
use burn::tensor::{Device, Tensor, TensorData};
use nsmc_bert::{Activation, BertConfig, BertForSequenceClassification};
use nsmc_data::{Batch, Example, ReviewBatcher};
use nsmc_experiment::Optimizer;
use nsmc_peft::{BottleneckConfig, Composition, FusionConfig, LoraConfig, PeftModel, Trains};
use nsmc_training::{AdamW, ClassificationTask, Replicas, Step};

const STEPS: usize = 4;

fn model(method: &str) -> PeftModel {
    let config = BertConfig {
        vocab_size: 50,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 16,
        hidden_act: Activation::Gelu,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        classifier_dropout: None,
        type_vocab_size: 2,
        initializer_range: 0.3,
        layer_norm_eps: 1e-12,
        pad_token_id: Some(0),
        id2label: BTreeMap::from([(0, "negative".into()), (1, "positive".into())]),
    };
    let device = Device::flex().autodiff();
    let mut model =
        PeftModel::new(BertForSequenceClassification::new(&config, 3, &device), &config);
    let trains = match method {
        "lora" => {
            model.add_lora(&LoraConfig::new(2, 6.0, &["query", "value"]), 5).unwrap();
            Trains::lora()
        }
        "adapterfusion" => {
            for (seed, name) in [(7, "ko"), (8, "nsmc")] {
                model.add_adapter(name, &BottleneckConfig::pfeiffer(4.0), seed).unwrap();
            }
            let fuse = Composition::fuse(["ko", "nsmc"]);
            model.add_fusion(&fuse, FusionConfig::dynamic(), 9).unwrap();
            model.set_active(Some(fuse)).unwrap();
            Trains::fusion("ko,nsmc")
        }
        _ => Trains::everything(),
    };
    model.train_only(trains)
}

/// Batches of reviews of different lengths; the last has fewer reviews than there are devices.
fn batch(step: usize) -> Batch {
    let reviews = [7, 5, 8, 2][step];
    let examples = (0..reviews).map(|review: usize| Example {
        review,
        input_ids: (0..2 + (review * 5 + step) % 9)
            .map(|token| (review * 31 + token * 7 + step * 13) as u32 % 50)
            .collect(),
        label: (review * 3 + step) % 2,
    });
    ReviewBatcher.batch(examples.collect(), &Device::flex().autodiff())
}

/// What each step gives, and the model after the last.
struct Trained {
    losses: Vec<Vec<f32>>,
    norms: Vec<f32>,
    model: BTreeMap<String, TensorData>,
}

fn train(method: &str, further_devices: usize) -> Trained {
    let mut task = ClassificationTask { model: model(method) };
    let mut replicas = Replicas::new(&task, &vec![Device::flex(); further_devices]);
    assert_eq!(replicas.is_empty(), further_devices == 0);
    // An epsilon above the noise of the gradients: Adam divides by their size.
    let adamw = AdamW {
        flavour: Optimizer::AdamwTorch,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-3,
        weight_decay: 0.01,
    };
    let mut optimizer = adamw.for_module(&Device::flex());
    let floats = |tensor: Tensor<1>| tensor.into_data().try_to_vec::<f32>().unwrap();
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 0..STEPS {
        let batch = batch(step);
        let labels: Vec<i64> = batch.labels.clone().into_data().iter().collect();
        let step = Step { index: step, learning_rate: 0.05, max_grad_norm: 0.7 };
        let (updated, output, norm) = task.optimize(&mut replicas, &mut optimizer, batch, step);
        task = updated;
        assert_eq!(output.labels.into_data().iter::<i64>().collect::<Vec<_>>(), labels);
        losses.push(floats(output.losses.inner()));
        norms.extend(floats(norm));
    }
    Trained { losses, norms, model: task.model.state_dict() }
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_batch_shared_among_devices_is_the_step_of_one() {
    for method in ["vanilla", "lora", "adapterfusion"] {
        let start = model(method).state_dict();
        let alone = train(method, 0);
        let moved = |name: &String| alone.model[name] != start[name];
        assert!(start.keys().any(moved), "{method}");
        for further_devices in [1, 2] {
            let shared = train(method, further_devices);
            for (alone, shared) in alone.losses.iter().zip(&shared.losses) {
                assert!(furthest(alone, shared) < 1e-5, "{method}: {alone:?}, {shared:?}");
            }
            assert!(furthest(&alone.norms, &shared.norms) < 1e-5, "{method}: {:?}", shared.norms);
            for (name, weights) in &alone.model {
                let values = |data: &TensorData| data.try_to_vec::<f32>().unwrap();
                let apart = furthest(&values(weights), &values(&shared.model[name]));
                assert!(apart < 1e-5, "{method}, {name}: {apart:e}");
                // What is frozen is not so much as copied.
                assert!(moved(name) || shared.model[name] == start[name], "{method}, {name}");
            }
        }
    }
}
