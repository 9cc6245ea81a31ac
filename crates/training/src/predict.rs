use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use nsmc_data::ReviewLoader;
use nsmc_peft::PeftModel;

use crate::{TrainingError, bert_input};

/// The logits of every review of `loader`, each with its review's index, in the order of the
/// indices, whatever the loader's order.
///
/// `device` must not record gradients; the model's dropout is then off. `progress` is told the number
/// of reviews done after each batch.
pub fn predict(
    model: &PeftModel,
    loader: &ReviewLoader,
    device: &Device,
    mut progress: impl FnMut(usize),
) -> Result<Vec<(usize, Vec<f32>)>, TrainingError> {
    let loader = loader.to_device(device);
    let mut predictions = Vec::with_capacity(loader.num_items());
    for batch in loader.iter() {
        let batch = batch.map_err(|error| TrainingError::Device(error.to_string()))?;
        let logits = model.forward(&bert_input(&batch));
        let [_, num_labels] = logits.dims();
        let logits: Vec<f32> =
            logits.try_into_vec_as().map_err(|error| TrainingError::Device(error.to_string()))?;
        predictions.extend(
            batch.reviews.iter().copied().zip(logits.chunks(num_labels).map(<[f32]>::to_vec)),
        );
        progress(predictions.len());
    }
    predictions.sort_unstable_by_key(|(review, _)| *review);
    Ok(predictions)
}
