//! Optimiser steps against PyTorch and transformers: the fixture `full_ft`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/support/fixture.rs"]
mod fixture;

use burn::lr_scheduler::LrScheduler;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use fixture::{Case, PARAMETER, fixtures, floats, output};
use nsmc_bert::{BertConfig, BertForSequenceClassification, NoHooks, state_dict};
use nsmc_experiment::Optimizer;
use nsmc_training::{AdamW, LinearSchedule, clip_grad_norm, losses};

/// The fixture's model with dropout off.
fn base(device: &Device) -> BertForSequenceClassification {
    let folder = fixtures().join("base");
    let config = BertConfig {
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        classifier_dropout: None,
        ..BertConfig::read(&folder.join("config.json")).unwrap()
    };
    BertForSequenceClassification::from_pretrained(&folder, &config, 0, device).unwrap()
}

/// What a run of optimiser steps found before each of them.
struct Run {
    model: BertForSequenceClassification,
    losses: Vec<f32>,
    norms: Vec<f32>,
}

/// One step on each batch of the fixture.
fn train(case: &Case, adamw: AdamW, mut schedule: impl FnMut(usize) -> f64, max_norm: f64) -> Run {
    let device = Device::flex().autodiff();
    let mut optimizer = adamw.for_all_parameters(&Device::flex());
    let mut run = Run { model: base(&device), losses: Vec::new(), norms: Vec::new() };
    assert!(case.batches() > 1);
    for step in 0..case.batches() {
        let batch = case.batch(step);
        let logits = run.model.forward(&batch.unpadded(&device), &NoHooks);
        let loss = losses(logits, batch.labels(&device)).mean();
        run.losses.extend(floats(loss.clone()));
        let gradients = GradientsParams::from_grads(loss.backward(), &run.model);
        let (gradients, norm) = clip_grad_norm(&run.model, gradients, max_norm);
        run.norms.extend(floats(norm));
        run.model = optimizer.step(schedule(step), run.model, gradients);
    }
    run
}

fn assert_parameters(case: &Case, prefix: &str, model: &BertForSequenceClassification) {
    let parameters = state_dict(model);
    let skipped = case.skip_after3();
    let names = case.names(prefix);
    assert!(names.len() > skipped.len() + 10);
    for name in names {
        if !skipped.contains(&name.to_owned()) {
            let values: Vec<f32> = parameters[name].try_to_vec().unwrap();
            case.assert_parameter(prefix, name, &values);
        }
    }
}

#[test]
fn three_steps_of_adamw_give_the_parameters_of_pytorch() {
    let case = Case::read("full_ft");
    let optimizer = &case.meta["optimizer"];
    let number = |key: &str| optimizer[key].as_f64().unwrap();
    let adamw = AdamW {
        flavour: Optimizer::AdamwTorch,
        beta1: optimizer["betas"][0].as_f64().unwrap(),
        beta2: optimizer["betas"][1].as_f64().unwrap(),
        epsilon: number("eps"),
        weight_decay: number("weight_decay"),
    };
    let lr = number("lr");
    let run = train(&case, adamw, |_| lr, 0.0);
    for (step, loss) in run.losses.iter().enumerate() {
        case.assert_close(&format!("train_loss.{step}"), &[*loss], output());
    }
    assert_parameters(&case, "after3.", &run.model);
    let device = Device::flex().autodiff();
    let logits = run.model.forward(&case.batch(0).unpadded(&device), &NoHooks);
    case.assert_close("logits_after3.0", &floats(logits), output());
}

#[test]
fn the_tutorials_recipe_gives_the_parameters_of_both_flavours() {
    let case = Case::read("full_ft");
    let lr = case.meta["optimizer"]["lr"].as_f64().unwrap();
    let eps = case.meta["optimizer"]["eps"].as_f64().unwrap();
    for (flavour, prefix) in
        [(Optimizer::AdamwTorch, "recipe_torch"), (Optimizer::AdamwHf, "recipe_legacy")]
    {
        let adamw = AdamW { flavour, beta1: 0.9, beta2: 0.999, epsilon: eps, weight_decay: 0.0 };
        let mut schedule = LinearSchedule::new(lr, 0.0, case.batches());
        let run = train(&case, adamw, |_| schedule.step(), 1.0);
        for (step, norm) in run.norms.iter().enumerate() {
            // A norm is large; the tolerance is relative.
            let key = format!("{prefix}_gradnorm.{step}");
            case.assert_close(&key, &[*norm], output() * norm.max(1.0));
        }
        assert_parameters(&case, &format!("{prefix}."), &run.model);
    }
}

#[test]
fn the_flavours_differ_where_gradients_are_small() {
    // Guards the test above: one flavour's parameters would not pass for the other's.
    let case = Case::read("full_ft");
    let worst = case
        .names("recipe_torch.")
        .iter()
        .flat_map(|name| {
            let torch = case.floats(&format!("recipe_torch.{name}"));
            let legacy = case.floats(&format!("recipe_legacy.{name}"));
            torch.iter().zip(legacy).map(|(a, b)| (a - b).abs()).collect::<Vec<_>>()
        })
        .fold(0.0, f32::max);
    assert!(worst > 10.0 * PARAMETER, "{worst:e}");
}
