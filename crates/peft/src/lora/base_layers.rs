use burn::nn::{Embedding, Linear};
use nsmc_bert::{BertForSequenceClassification, EmbeddingSite, LinearSite};

use crate::PeftError;

/// The base's layer at a site.
pub(super) fn linear(
    base: &BertForSequenceClassification,
    site: LinearSite,
) -> Result<&Linear, PeftError> {
    let layer = |index: usize| &base.bert.encoder.layer[index];
    Ok(match site {
        LinearSite::Query(index) => &layer(index).attention.self_attention.query,
        LinearSite::Key(index) => &layer(index).attention.self_attention.key,
        LinearSite::Value(index) => &layer(index).attention.self_attention.value,
        LinearSite::AttentionOutput(index) => &layer(index).attention.output.dense,
        LinearSite::Intermediate(index) => &layer(index).intermediate.dense,
        LinearSite::Output(index) => &layer(index).output.dense,
        LinearSite::Classifier => &base.classifier,
        LinearSite::Pooler => match &base.bert.pooler {
            Some(pooler) => &pooler.dense,
            None => {
                return Err(PeftError::Value {
                    key: "target_modules",
                    message: "the model has no pooler".into(),
                });
            }
        },
    })
}

pub(super) fn linear_mut(
    base: &mut BertForSequenceClassification,
    site: LinearSite,
) -> Option<&mut Linear> {
    let layers = &mut base.bert.encoder.layer;
    Some(match site {
        LinearSite::Query(index) => &mut layers[index].attention.self_attention.query,
        LinearSite::Key(index) => &mut layers[index].attention.self_attention.key,
        LinearSite::Value(index) => &mut layers[index].attention.self_attention.value,
        LinearSite::AttentionOutput(index) => &mut layers[index].attention.output.dense,
        LinearSite::Intermediate(index) => &mut layers[index].intermediate.dense,
        LinearSite::Output(index) => &mut layers[index].output.dense,
        LinearSite::Classifier => &mut base.classifier,
        LinearSite::Pooler => &mut base.bert.pooler.as_mut()?.dense,
    })
}

/// The base's embedding table at a site.
pub(super) fn embedding(base: &BertForSequenceClassification, site: EmbeddingSite) -> &Embedding {
    let embeddings = &base.bert.embeddings;
    match site {
        EmbeddingSite::Word => &embeddings.word_embeddings,
        EmbeddingSite::Position => &embeddings.position_embeddings,
        EmbeddingSite::TokenType => &embeddings.token_type_embeddings,
    }
}

pub(super) fn embedding_mut(
    base: &mut BertForSequenceClassification,
    site: EmbeddingSite,
) -> &mut Embedding {
    let embeddings = &mut base.bert.embeddings;
    match site {
        EmbeddingSite::Word => &mut embeddings.word_embeddings,
        EmbeddingSite::Position => &mut embeddings.position_embeddings,
        EmbeddingSite::TokenType => &mut embeddings.token_type_embeddings,
    }
}
