//! Plain BERT against transformers: the fixtures `full_ft` and `base_legacy`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/support/fixture.rs"]
mod fixture;

use burn::tensor::loss::cross_entropy_with_logits;
use burn::tensor::{Device, Int, Tensor};
use fixture::{Batch, Case, assert_close, fixtures, floats, output};
use nsmc_bert::{
    BertConfig, BertForSequenceClassification, BertInput, NoHooks, load_state_dict, read_tensors,
};

fn config() -> BertConfig {
    BertConfig::read(&fixtures().join("base/config.json")).unwrap()
}

fn base(device: &Device) -> BertForSequenceClassification {
    BertForSequenceClassification::from_pretrained(&fixtures().join("base"), &config(), 0, device)
        .unwrap()
}

/// The model with dropout off, on a device that records gradients.
fn without_dropout(device: &Device) -> BertForSequenceClassification {
    let config = BertConfig {
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        classifier_dropout: None,
        ..config()
    };
    BertForSequenceClassification::from_pretrained(&fixtures().join("base"), &config, 0, device)
        .unwrap()
}

fn loss(
    model: &BertForSequenceClassification,
    input: &BertInput,
    batch: &Batch,
    device: &Device,
) -> Tensor<1> {
    let logits = model.forward(input, &NoHooks);
    let classes = logits.dims()[1];
    let targets = batch.labels(device).one_hot(classes).float();
    cross_entropy_with_logits(logits, targets)
}

#[test]
fn logits_and_loss_are_those_of_transformers() {
    let case = Case::read("full_ft");
    let device = Device::flex();
    let model = base(&device);
    assert!(case.batches() > 0);
    for index in 0..case.batches() {
        let batch = case.batch(index);
        let input = batch.unpadded(&device);
        let logits = floats(model.forward(&input, &NoHooks));
        case.assert_close(&format!("logits.{index}"), &logits, output());
        let loss = floats(loss(&model, &input, &batch, &device));
        case.assert_close(&format!("loss.{index}"), &loss, output());
    }
}

#[test]
fn hidden_states_are_those_of_transformers() {
    let case = Case::read("full_ft");
    let device = Device::flex();
    let batch = case.batch(0);
    let states = base(&device).bert.hidden_states(&batch.unpadded(&device), &NoHooks);
    assert_eq!(states.len(), case.names("hidden.").len());
    for (index, state) in states.into_iter().enumerate() {
        let key = format!("hidden.{index}");
        let expected = batch.tokens_of(case.floats(&key));
        assert_close(&key, &floats(state), &expected, output());
    }
}

#[test]
fn gradients_are_those_of_transformers() {
    let case = Case::read("full_ft");
    let device = Device::flex().autodiff();
    let model = without_dropout(&device);
    let batch = case.batch(0);
    let gradients = loss(&model, &batch.unpadded(&device), &batch, &device).backward();
    let gradients = fixture::gradients(model, &gradients);
    let expected = case.names("grad.");
    assert_eq!(gradients.keys().map(String::as_str).collect::<Vec<_>>(), expected);
    for name in expected {
        let gradient: Vec<f32> = gradients[name].try_to_vec().unwrap();
        case.assert_close(&format!("grad.{name}"), &gradient, output());
    }
}

#[test]
fn both_pytorch_containers_with_the_names_of_2018_give_the_same_logits() {
    let case = Case::read("full_ft");
    let device = Device::flex();
    let batch = case.batch(0);
    for file in ["pytorch_model.bin", "pytorch_model_zip.bin"] {
        let path = fixtures().join("base_legacy").join(file);
        let mut tensors = read_tensors(&path).unwrap();
        tensors.retain(|name, _| !name.starts_with("cls."));
        let new = BertForSequenceClassification::new(&config(), 0, &device);
        let model = load_state_dict(new, tensors, &path, |_| false).unwrap();
        let logits = floats(model.forward(&batch.unpadded(&device), &NoHooks));
        case.assert_close("logits.0", &logits, output());
    }
}

#[test]
fn a_batch_gives_the_same_however_it_is_laid_out() {
    let case = Case::read("full_ft");
    let device = Device::flex().autodiff();
    let model = without_dropout(&device);
    let longest_position = config().max_position_embeddings;
    for index in 0..case.batches() {
        let batch = case.batch(index);
        let longest = *batch.lengths.iter().max().unwrap();
        let layouts = [
            ("unpadded", batch.unpadded(&device)),
            ("padded to the longest", batch.padded(longest, &device)),
            ("padded to the limit", batch.padded(longest_position.min(128), &device)),
        ];
        let mut reference: Option<(Vec<f32>, _)> = None;
        for (layout, input) in layouts {
            let logits = floats(model.forward(&input, &NoHooks));
            let gradients = loss(&model, &input, &batch, &device).backward();
            let gradients = fixture::gradients(model.clone(), &gradients);
            let Some((expected, expected_gradients)) = &reference else {
                reference = Some((logits, gradients));
                continue;
            };
            assert_close(layout, &logits, expected, 1e-5);
            same_gradients(layout, &gradients, expected_gradients);
        }

        let (expected, expected_gradients) = reference.unwrap();
        let mut logits = Vec::new();
        let mut total = Tensor::<1>::zeros([1], &device);
        for one in (0..batch.lengths.len()).map(|review| batch.one(review)) {
            let input = one.unpadded(&device);
            logits.extend(floats(model.forward(&input, &NoHooks)));
            total = total + loss(&model, &input, &one, &device);
        }
        assert_close("one review at a time", &logits, &expected, 1e-5);
        let gradients = (total / batch.lengths.len() as f64).backward();
        let gradients = fixture::gradients(model.clone(), &gradients);
        same_gradients("one review at a time", &gradients, &expected_gradients);
    }
}

fn same_gradients(
    layout: &str,
    actual: &std::collections::BTreeMap<String, burn::tensor::TensorData>,
    expected: &std::collections::BTreeMap<String, burn::tensor::TensorData>,
) {
    assert_eq!(actual.len(), expected.len());
    for (name, gradient) in actual {
        let (actual, expected): (Vec<f32>, Vec<f32>) =
            (gradient.try_to_vec().unwrap(), expected[name].try_to_vec().unwrap());
        assert_close(&format!("{layout}: {name}"), &actual, &expected, 2e-5);
    }
}

#[test]
fn the_first_tokens_alone_are_those_of_the_whole() {
    let case = Case::read("full_ft");
    let device = Device::flex();
    let model = base(&device);
    let batch = case.batch(0);
    for input in [batch.unpadded(&device), batch.padded(batch.width, &device)] {
        let whole = model.bert.forward(&input, &NoHooks).select(0, input.sequences.first_rows());
        let first = model.bert.forward_first(&input, &NoHooks);
        assert_close("first tokens", &floats(first), &floats(whole), 1e-5);
    }
}

#[test]
fn chosen_rows_alone_are_those_of_the_whole() {
    let case = Case::read("full_ft");
    let device = Device::flex().autodiff();
    let model = without_dropout(&device);
    let batch = case.batch(0);
    let input = batch.unpadded(&device);
    // None of the second sequence, two of the first, the last row; in no order.
    let last = input.sequences.rows() as i64 - 1;
    let rows = Tensor::<1, Int>::from_data([last, 2, 0], &device);
    let whole = model.bert.forward(&input, &NoHooks).select(0, rows.clone());
    let chosen = model.bert.forward_rows(&input, rows, &NoHooks);
    // Small, for the tolerance of gradients is not relative.
    let weights: Vec<f32> =
        (0..whole.shape().num_elements()).map(|i| 0.1 * (i as f32).sin()).collect();
    let weights = Tensor::<1>::from_floats(weights.as_slice(), &device).reshape(whole.dims());
    let gradients = |states: Tensor<2>| {
        let gradients = (states * weights.clone()).sum().backward();
        fixture::gradients(model.clone(), &gradients)
    };
    assert_close("chosen rows", &floats(chosen.clone()), &floats(whole.clone()), 1e-5);
    same_gradients("chosen rows", &gradients(chosen), &gradients(whole));

    // As on a GPU, where sequences are padded: the rows are positions.
    let (sequence, length) = (batch.lengths.len() - 1, batch.lengths[batch.lengths.len() - 1]);
    assert!(batch.lengths.iter().sum::<usize>() < sequence * batch.width + length);
    let row = |row: usize| Tensor::<1, Int>::from_data([row as i64], &device);
    let padded = batch.padded(batch.width, &device);
    let padded = model.bert.forward_rows(&padded, row(sequence * batch.width), &NoHooks);
    let first = row(input.sequences.rows() - length);
    let unpadded = model.bert.forward_rows(&input, first, &NoHooks);
    assert_close("padded rows", &floats(padded), &floats(unpadded), 1e-5);
}
