//! Whether a device computes what the CPU computes: logits, gradients and losses of every method.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use nsmc_bert::{BertConfig, Init};
use nsmc_training::{clip_grad_norm, losses, set_precision};

use crate::args::{CheckDevice, DeviceChoice, InputLayout, Trained};
use crate::output::print;
use crate::{bench, device, logging};

/// Relative error up to which values count as the same. Matrix products on a GPU round their factors
/// to TF32, which has 10 bits behind the point; a wrong formula is off by its own size.
const TOLERANCE: f64 = 0.05;

/// Computes everything on the CPU and on the device, and prints how far they are apart, a JSON object
/// a method.
pub(crate) fn run(args: &CheckDevice, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    let reference = device::choose(DeviceChoice::Cpu)?;
    let checked = device::choose(args.device)?;
    let batches = bench::read_lengths(&args.lengths)?;
    let (shape, config) = bench::config(args.shape);
    let config = BertConfig {
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        classifier_dropout: None,
        ..config
    };
    let mut off = Vec::new();
    for method in [Trained::Vanilla, Trained::Lora, Trained::Adapter, Trained::Adapterfusion] {
        let compute = |device: &Device| compute(method, &config, &batches, args.steps, device);
        // For the device alone; the CPU's kernels are float32's.
        set_precision(args.precision.into(), &checked.device)?;
        let (expected, found) = (compute(&reference.device)?, compute(&checked.device)?);
        ensure!(
            expected.gradients.keys().eq(found.gradients.keys()),
            "{method:?}: other parameters have gradients on {}",
            checked.name
        );
        let logits = relative_error(&found.logits, &expected.logits);
        let each = expected.gradients.iter().map(|(path, gradient)| {
            (relative_error(&found.gradients[path], gradient), path.as_str())
        });
        let (worst, path) =
            each.max_by(|a, b| a.0.total_cmp(&b.0)).context("nothing has a gradient")?;
        let all = |computed: &Computed| computed.gradients.values().flatten().copied().collect();
        let (all_found, all_expected): (Vec<f32>, Vec<f32>) = (all(&found), all(&expected));
        let gradients = relative_error(&all_found, &all_expected);
        let losses = expected.losses.iter().zip(&found.losses);
        let loss = losses.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        print(serde_json::json!({
            "method": method,
            "model": shape,
            "device": checked.name,
            "logits": logits,
            "gradients": gradients,
            "worst_gradient": worst,
            "of": path,
            "loss": loss,
            "last_loss": expected.losses.last(),
        }))?;
        // A NaN is not within the tolerance either.
        if !(logits < TOLERANCE && worst < TOLERANCE && loss < TOLERANCE) {
            off.push(format!("{method:?}"));
        }
    }
    ensure!(off.is_empty(), "{} does not compute what the CPU computes: {off:?}", checked.name);
    Ok(())
}

/// ‖found - expected‖ / ‖expected‖
fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value).powi(2);
    let error: f64 = found.iter().zip(expected).map(|(&found, &value)| square(found - value)).sum();
    let size: f64 = expected.iter().map(|&value| square(value)).sum();
    (error / size.max(f64::MIN_POSITIVE)).sqrt()
}

/// What a device computes.
struct Computed {
    logits: Vec<f32>,
    gradients: BTreeMap<String, Vec<f32>>,
    /// Of each training step.
    losses: Vec<f32>,
}

fn compute(
    method: Trained,
    config: &BertConfig,
    batches: &[Vec<usize>],
    steps: usize,
    device: &Device,
) -> Result<Computed> {
    let device = &device.clone().autodiff();
    let model = bench::model(method, 16, config, device)?;
    // What begins at 0 (LoRA's B, biases) would hide errors in what it multiplies.
    let mut perturb = Perturb { device, path: Vec::new() };
    let mut model = model.map(&mut perturb);
    let batch = |step: usize| {
        let lengths = &batches[step % batches.len()];
        bench::batch(lengths, InputLayout::Device, config, step, device)
    };
    let (input, labels) = batch(0);
    let logits = model.forward(&input);
    let loss = losses(logits.clone(), labels).mean();
    let found = GradientsParams::from_grads(loss.backward(), &model);
    let mut gradients = Gradients { found: &found, path: Vec::new(), values: BTreeMap::new() };
    model.visit(&mut gradients);
    let (logits, gradients) = (logits.try_into_vec_as().context("the logits")?, gradients.values);

    let mut optimizer = ModuleOptimizer::from(bench::ADAMW);
    let mut curve = Vec::with_capacity(steps);
    for step in 0..steps {
        let (input, labels) = batch(step);
        let loss = losses(model.forward(&input), labels).mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let (gradients, _) = clip_grad_norm(&model, gradients, 1.0);
        model = optimizer.step(1e-4, model, gradients);
        curve.push(loss.try_into_scalar::<f32>().context("the loss")?);
    }
    Ok(Computed { logits, gradients, losses: curve })
}

/// Adds noise to every parameter, by its name: the same on every device.
struct Perturb<'a> {
    device: &'a Device,
    path: Vec<String>,
}

impl ModuleMapper for Perturb<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let noise = Init::new(7, 0.02, self.device).enter(self.path.join("."));
        param.map(|value| {
            let trains = value.is_require_grad();
            let noise = noise.normal(value.dims()).val();
            (value + noise).detach().set_require_grad(trains)
        })
    }
}

/// Reads the gradients that there are.
struct Gradients<'a> {
    found: &'a GradientsParams,
    path: Vec<String>,
    values: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for Gradients<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.found.get::<D>(param.id) {
            let values = gradient.try_into_vec_as().expect("a gradient of f32");
            self.values.insert(self.path.join("."), values);
        }
    }
}
