use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{Int, Tensor, TensorData, activation};
use nsmc_bert::{BertConfig, BertForMaskedLm, BertInput};
use nsmc_data::BertTokenizer;
use nsmc_peft::AdaptedMaskedLm;
use nsmc_training::MaskedLanguageModel;
use serde_json::json;

use crate::args::{DeviceChoice, FillMask};
use crate::output::print;
use crate::{device, logging};

/// Says what a masked language model puts in the place of each `[MASK]`: one JSON object per text.
pub(crate) fn run(args: &FillMask, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    let device = device::choose(DeviceChoice::Cpu)?.device;
    let config = BertConfig::read(&args.model.join("config.json"))?;
    let base = BertForMaskedLm::from_pretrained(&args.model, &config, &device)?;
    let tokenizer = BertTokenizer::from_pretrained(&args.model)?;
    ensure!(
        tokenizer.vocab_size() <= config.vocab_size,
        "{}: the tokenizer has {} entries, the model's embeddings {}",
        args.model.display(),
        tokenizer.vocab_size(),
        config.vocab_size
    );
    let load = |folder| {
        AdaptedMaskedLm::load(base.clone(), &config, folder)
            .with_context(|| format!("the adapter {}", folder.display()))
    };
    let adapted = args.adapter.as_deref().map(load).transpose()?;
    let logits = |input: &BertInput, rows: Tensor<1, Int>| match &adapted {
        Some(adapted) => adapted.logits(input, rows),
        None => base.logits(input, rows),
    };
    let mask = tokenizer.token_to_id("[MASK]").context("the tokenizer has no [MASK]")?;
    let encodings = tokenizer.encode(&args.text, config.max_position_embeddings)?;
    for (text, encoding) in args.text.iter().zip(encodings) {
        let ids = encoding.input_ids;
        if !ids.contains(&mask) {
            ensure!(
                encoding.truncated,
                "`--text`: expected a text with [MASK] in it, found \"{text}\""
            );
            bail!(
                "`--text`: the first {} tokens, all that the model takes, hold no [MASK]",
                ids.len()
            );
        }
        let rows: Vec<i32> = (0..ids.len() as i32).collect();
        let rows = Tensor::from_data(TensorData::new(rows, [ids.len()]), &device);
        let logits = logits(&BertInput::from_ids(std::slice::from_ref(&ids), &device), rows);
        let probabilities: Vec<f32> =
            activation::softmax(logits.clone(), 1).try_into_vec_as().context("the logits")?;
        let logits: Vec<f32> = logits.try_into_vec_as().context("the logits")?;
        let width = logits.len() / ids.len();
        let masks = (0..ids.len()).filter(|&row| ids[row] == mask).map(|row| {
            let probabilities = &probabilities[row * width..(row + 1) * width];
            let mut best: Vec<usize> = (0..width).collect();
            best.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
            let predictions: Vec<_> = best
                .into_iter()
                .take(args.top)
                .map(|id| json!({"token": tokenizer.vocab().get(id), "probability": probabilities[id]}))
                .collect();
            json!({"position": row, "predictions": predictions})
        });
        let mut answer = json!({"masks": masks.collect::<Vec<_>>()});
        if args.logits {
            answer["input_ids"] = json!(ids);
            answer["logits"] = json!(logits.chunks(width).collect::<Vec<_>>());
        }
        print(answer)?;
    }
    Ok(())
}
