use nsmc_bert::{BertInput, Sequences};
use nsmc_data::Batch;

/// A batch of reviews as BERT takes it.
pub fn bert_input(batch: &Batch) -> BertInput {
    BertInput::new(
        batch.input_ids.clone(),
        batch.position_ids.clone(),
        batch.token_type_ids.clone(),
        Sequences::unpadded(batch.lengths.clone(), &batch.input_ids.device()),
    )
}
