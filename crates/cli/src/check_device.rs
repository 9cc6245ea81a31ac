//! Whether a device computes what the CPU computes: logits, gradients and losses of every method.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use nsmc_bert::{BertConfig, Init};
use nsmc_training::{losses, set_precision};

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
    let config = without_dropout(config);
    let mut off = Vec::new();
    for method in [Trained::Vanilla, Trained::Lora, Trained::Adapter, Trained::AdapterFusion] {
        let compute = |device: &Device| compute(method, &config, &batches, args.steps, device);
        // For the device alone; the CPU's kernels are float32's.
        set_precision(args.precision, &checked.device).context("`--precision`")?;
        let (expected, found) = (compute(&reference.device)?, compute(&checked.device)?);
        ensure!(
            expected.gradients.keys().eq(found.gradients.keys()),
            "{method:?}: other parameters have gradients on {}",
            checked.name
        );
        let logits = relative_error(&found.logits, &expected.logits);
        let each = expected.gradients.iter().filter(|(path, _)| !vanishes(path));
        let each = each.map(|(path, gradient)| {
            (relative_error(&found.gradients[path], gradient), path.as_str())
        });
        let (worst_gradient, path) = worst(each).context("nothing has a gradient")?;
        let all = |computed: &Computed| computed.gradients.values().flatten().copied().collect();
        let (all_found, all_expected): (Vec<f32>, Vec<f32>) = (all(&found), all(&expected));
        let gradients = relative_error(&all_found, &all_expected);
        let losses = expected.losses.iter().zip(&found.losses);
        let apart = losses.map(|(a, b)| (f64::from((a - b).abs()), ()));
        let (loss, ()) = worst(apart).unwrap_or_default();
        print(serde_json::json!({
            "method": method.kind(),
            "model": shape,
            "device": checked.name,
            "logits": logits,
            "gradients": gradients,
            "worst_gradient": worst_gradient,
            "of": path,
            "loss": loss,
            "last_loss": expected.losses.last(),
        }))?;
        if !within_tolerance(&[logits, gradients, worst_gradient, loss]) {
            off.push(format!("{method:?}"));
        }
    }
    ensure!(off.is_empty(), "{} does not compute what the CPU computes: {off:?}", checked.name);
    Ok(())
}

fn without_dropout(config: BertConfig) -> BertConfig {
    BertConfig {
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        classifier_dropout: None,
        ..config
    }
}

/// Whether, without dropout, the gradient of a parameter is 0 whatever the data, so that only rounding
/// is left of it: the bias of an attention's keys adds the same to every score of a query, of which
/// softmax takes no notice. An error there is seen in that of all gradients together.
fn vanishes(path: &str) -> bool {
    path.ends_with("key.bias")
}

/// The largest error and what it is of; NaN is larger than any.
fn worst<T>(errors: impl Iterator<Item = (f64, T)>) -> Option<(f64, T)> {
    errors.max_by(|a, b| a.0.abs().total_cmp(&b.0.abs()))
}

/// NaN is not.
fn within_tolerance(errors: &[f64]) -> bool {
    errors.iter().all(|&error| error < TOLERANCE)
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

    let mut optimizer = bench::ADAMW.for_module(device);
    let mut curve = Vec::with_capacity(steps);
    for step in 0..steps {
        let (input, labels) = batch(step);
        let loss;
        (model, loss) = bench::train_step(model, &mut optimizer, &input, labels, 1e-4);
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

#[cfg(test)]
mod tests {
    use burn::module::ParamId;

    use super::*;
    use crate::args::ModelShape;

    #[test]
    fn what_is_off_is_found() {
        assert!((relative_error(&[3.0, 4.5], &[3.0, 4.0]) - 0.1).abs() < 1e-9);
        let off = worst([(0.1, "a"), (0.3, "b"), (0.2, "c")].into_iter());
        assert_eq!(off, Some((0.3, "b")));
        for nan in [f64::NAN, -f64::NAN] {
            let (error, of) = worst([(0.1, "a"), (nan, "b"), (0.2, "c")].into_iter()).unwrap();
            assert!(error.is_nan() && of == "b" && !within_tolerance(&[0.0, error]));
        }
        assert!(within_tolerance(&[0.0, 0.04]) && !within_tolerance(&[0.0, 0.06]));
    }

    #[test]
    fn only_gradients_that_are_rounding_are_left_out() {
        let config = without_dropout(bench::config(ModelShape::Mini).1);
        let lengths = [vec![5, 9]];
        for method in [Trained::Vanilla, Trained::AdapterFusion] {
            let computed = compute(method, &config, &lengths, 0, &Device::flex()).unwrap();
            let size = |gradient: &[f32]| gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
            let sizes = || computed.gradients.iter().map(|(path, gradient)| (path, size(gradient)));
            let left_out = sizes().filter(|(path, _)| vanishes(path));
            let largest_left_out = left_out.map(|(_, size)| size).fold(0.0, f32::max);
            let all = sizes().map(|(_, size)| size * size).sum::<f32>().sqrt();
            assert!(largest_left_out > 0.0 && largest_left_out < 1e-6 * all, "{method:?}");
        }
    }

    #[test]
    fn noise_goes_by_name_and_keeps_what_trains() {
        let device = Device::flex().autodiff();
        let noise = |name: &str, trains: bool| {
            let zeros = Tensor::<1>::zeros([64], &device).set_require_grad(trains);
            let mut perturb = Perturb { device: &device, path: vec![name.into()] };
            let param = perturb.map_float(Param::initialized(ParamId::new(), zeros));
            assert_eq!(param.val().is_require_grad(), trains);
            param.val().into_data().try_to_vec::<f32>().unwrap()
        };
        assert_eq!(noise("a", true), noise("a", false));
        assert_ne!(noise("a", true), noise("b", true));
        assert!(noise("a", true).iter().all(|&value| value != 0.0));
    }
}
