//! Timing on made-up batches of given lengths, so that other programs can be timed on the same.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor, TensorData};
use nsmc_bert::{BertConfig, BertForSequenceClassification, BertInput};
use nsmc_eval::statistics::median;
use nsmc_experiment::Optimizer;
use nsmc_peft::{
    BottleneckConfig, Composition, FusionConfig, LoraConfig, PeftModel, TargetModules, Trains,
};
use nsmc_training::{
    AdamW, among_the_threads, clip_grad_norm, losses, peak_memory_mib, set_precision,
};

use crate::args::{BenchTrain, InputLayout, ModelShape, Trained};
use crate::output::print;
use crate::{device, logging};

/// Padded batches are this wide, as the paper's.
const PADDED: usize = 128;

/// The peers' optimizer.
pub(crate) const ADAMW: AdamW = AdamW {
    flavour: Optimizer::AdamwTorch,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weight_decay: 0.01,
};

/// Times training steps of one method and prints one JSON line: the peers' optimizer and rate, random
/// weights, dropout on. AdapterFusion's regulariser, which is no part of the peers' step, is left out. The
/// fields are those of the Python peers' script.
pub(crate) fn train(args: &BenchTrain, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    let named = device::choose(args.device)?;
    set_precision(args.precision, &named.device).context("`--precision`")?;
    let device = named.device.clone().autodiff();
    let batches = read_lengths(&args.lengths)?;
    let (shape, config) = config(args.shape);
    let mut model = model(args.method, args.rank, &config, &device)?;
    let trainable = model.parameter_counts().trainable;
    let mut optimizer = ADAMW.for_module(&named.device);
    let mut times = Vec::new();
    let mut memory: Option<f64> = None;
    let (mut samples, mut tokens) = (0, 0);
    for step in 0..args.warmup + args.steps {
        let lengths = &batches[step % batches.len()];
        let (input, labels) = batch(lengths, args.layout, &config, step, &device);
        device.sync().context("the device")?;
        let started = Instant::now();
        let loss;
        (model, loss) =
            among_the_threads(&device, || train_step(model, &mut optimizer, &input, labels, 2e-5));
        let loss = loss.try_into_scalar::<f32>().context("the loss")?;
        device.sync().context("the device")?;
        memory = memory.into_iter().chain(peak_memory_mib(&named.device)).reduce(f64::max);
        if step >= args.warmup {
            times.push(started.elapsed().as_secs_f64());
            samples += lengths.len();
            tokens += lengths.iter().sum::<usize>();
        }
        ensure!(loss.is_finite(), "the loss of step {step} is {loss}");
    }
    let total: f64 = times.iter().sum();
    let line = serde_json::json!({
        "method": args.method.kind(),
        "padding": args.layout,
        "model": shape,
        "device": named.name,
        "dtype": args.precision,
        "steps": args.steps,
        "trainable": trainable,
        "samples_per_s": round(samples as f64 / total, 3),
        "tokens_per_s": round(tokens as f64 / total, 1),
        "step_s": round(median(&times), 4),
        "peak_rss_mib": memory.map(f64::round),
        "nsmc": env!("CARGO_PKG_VERSION"),
    });
    print(line)
}

/// A training step, and the loss before it.
pub(crate) fn train_step(
    model: PeftModel,
    optimizer: &mut ModuleOptimizer,
    input: &BertInput,
    labels: Tensor<1, Int>,
    learning_rate: f64,
) -> (PeftModel, Tensor<1>) {
    let loss = losses(model.forward(input), labels).mean();
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let (gradients, _) = clip_grad_norm(&model, gradients, 1.0);
    (optimizer.step(learning_rate, model, gradients), loss)
}

fn round(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (value * factor).round() / factor
}

/// One batch a line: the token counts of its sequences.
pub(crate) fn read_lengths(path: &Path) -> Result<Vec<Vec<usize>>> {
    let text = fs_err::read_to_string(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let batches = lines.map(|(index, line)| {
        let lengths = line.split_whitespace().map(|length| {
            length.parse().ok().filter(|length| (1..=PADDED).contains(length)).with_context(|| {
                let line = index + 1;
                format!(
                    "{}:{line}: expected token counts from 1 to {PADDED}, found `{length}`",
                    path.display()
                )
            })
        });
        lengths.collect()
    });
    let batches: Vec<Vec<usize>> = batches.collect::<Result<_>>()?;
    ensure!(!batches.is_empty(), "{}: expected a batch a line, found none", path.display());
    Ok(batches)
}

pub(crate) fn config(shape: ModelShape) -> (&'static str, BertConfig) {
    let (name, json) = match shape {
        ModelShape::Mbert => (
            "mbert",
            r#"{"vocab_size": 119547, "hidden_size": 768, "num_hidden_layers": 12,
                "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512}"#,
        ),
        ModelShape::Mini => (
            "mini",
            r#"{"vocab_size": 8000, "hidden_size": 256, "num_hidden_layers": 4,
                "num_attention_heads": 4, "intermediate_size": 1024, "max_position_embeddings": 512}"#,
        ),
    };
    (name, serde_json::from_str(json).expect("the configuration is valid"))
}

/// The methods as the peers' script sets them up.
pub(crate) fn model(
    method: Trained,
    rank: usize,
    config: &BertConfig,
    device: &Device,
) -> Result<PeftModel> {
    let base = BertForSequenceClassification::new(config, 0, device);
    let mut model = PeftModel::new(base, config);
    match method {
        Trained::Vanilla => Ok(model.train_only(Trains::everything())),
        Trained::Lora => {
            let lora = LoraConfig {
                exclude_modules: Some(TargetModules::List(vec!["pooler.dense".into()])),
                ..LoraConfig::new(rank, rank as f64, &["query", "key", "value", "dense"])
            };
            model.add_lora(&lora, 0)?;
            Ok(model.train_only(Trains::lora()))
        }
        Trained::Adapter => {
            model.add_adapter("nsmc", &BottleneckConfig::pfeiffer(16.0), 0)?;
            model.set_active(Some(Composition::single("nsmc")))?;
            Ok(model.train_only(Trains::adapters(["nsmc"])))
        }
        Trained::AdapterFusion => {
            let ko = BottleneckConfig {
                non_linearity: nsmc_bert::Activation::Gelu,
                ..BottleneckConfig::pfeiffer(2.0)
            };
            model.add_adapter("ko", &ko, 0)?;
            model.add_adapter("nsmc", &BottleneckConfig::pfeiffer(16.0), 0)?;
            let fuse = Composition::fuse(["ko", "nsmc"]);
            model.add_fusion(&fuse, FusionConfig::dynamic(), 0)?;
            model.set_active(Some(fuse))?;
            Ok(model.train_only(Trains::fusion("ko,nsmc")))
        }
    }
}

/// A batch of made-up tokens; the same for the same step.
pub(crate) fn batch(
    lengths: &[usize],
    layout: InputLayout,
    config: &BertConfig,
    step: usize,
    device: &Device,
) -> (BertInput, Tensor<1, Int>) {
    let ids = |row: usize| -> Vec<u32> {
        let token = |at: usize| 5 + (step * 7919 + row * 613 + at * 31) % (config.vocab_size - 5);
        (0..lengths[row]).map(|at| token(at) as u32).collect()
    };
    let rows: Vec<Vec<u32>> = (0..lengths.len()).map(ids).collect();
    let input = match layout {
        InputLayout::Device => BertInput::from_ids(&rows, device).for_device().0,
        InputLayout::Unpadded => BertInput::from_ids(&rows, device),
        InputLayout::Padded => {
            let padded = rows.iter().flat_map(|row| {
                let padding = std::iter::repeat_n(0, PADDED - row.len());
                row.iter().copied().chain(padding)
            });
            let ids: Vec<u32> = padded.collect();
            let types = vec![0; ids.len()];
            BertInput::padded(&ids, &types, lengths.to_vec(), PADDED, device)
        }
    };
    let labels: Vec<i64> = (0..lengths.len()).map(|row| ((row + step) % 2) as i64).collect();
    let labels = Tensor::from_data(TensorData::new(labels, [lengths.len()]), device);
    (input, labels)
}
