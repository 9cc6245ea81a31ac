//! Where the base's layers are, in one list for those who look and those who change.

use burn::nn::{Embedding, Linear};
use nsmc_bert::{BertForSequenceClassification, EmbeddingSite, LinearSite};

/// The base's layer at a site; none is the pooler's of a model without.
pub(super) fn linear(
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
pub(super) fn embedding(
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
