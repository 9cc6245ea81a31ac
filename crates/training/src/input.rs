use nsmc_bert::{BertInput, Sequences};
use nsmc_data::Batch;

/// A batch of reviews as BERT takes it, laid out as its device computes it fastest.
pub fn bert_input(batch: &Batch) -> BertInput {
    let input = BertInput::new(
        batch.input_ids.clone(),
        batch.position_ids.clone(),
        batch.token_type_ids.clone(),
        Sequences::unpadded(batch.lengths.clone(), &batch.input_ids.device()),
    );
    input.for_device().0
}
