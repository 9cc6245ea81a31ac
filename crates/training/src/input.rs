use burn::tensor::{Int, Tensor};
use nsmc_bert::{BertInput, Sequences};
use nsmc_data::Batch;

/// A batch of reviews as BERT takes it, laid out as its device computes it fastest, and the rows of its
/// tokens where others, of padding, lie between them.
pub(crate) fn laid_out(batch: &Batch) -> (BertInput, Option<Tensor<1, Int>>) {
    let input = BertInput::new(
        batch.input_ids.clone(),
        batch.position_ids.clone(),
        batch.token_type_ids.clone(),
        Sequences::unpadded(batch.lengths.clone(), &batch.input_ids.device()),
    );
    input.for_device()
}
