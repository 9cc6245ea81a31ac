//! Masked-language-model pre-training: from the raw crawl to batches with masked tokens.
//!
//! - [`build_corpus`] makes one file of the crawl's archive, without what the test set holds.
//! - [`read_corpus`] and [`hold_out`] read it back and choose of it by id.
//! - [`write_stars`] makes a classification data set of its stars.
//! - [`mask`] hides whole words; [`MaskingVocabulary`] knows which tokens make one.
//! - [`PretrainingLoader`] packs the reviews into batches of like cost.
//!
//! Order, batches and masks are pure functions of seed, epoch and the reviews' ids: a training goes
//! on from any batch of any epoch without a saved state, and its masks do not depend on its batches.

mod corpus;
mod documents;
mod loader;
mod masking;
mod packing;
mod stars;

pub use corpus::{CorpusSummary, build_corpus};
pub use documents::{CorpusReview, hold_out, read_corpus};
pub use loader::{PretrainingBatch, PretrainingLoader};
pub use masking::{Masked, MaskingVocabulary, mask};
pub use packing::Packing;
pub use stars::{StarSummary, write_stars};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// A generator of its own for `what` of `id` in an epoch.
fn generator(what: &str, seed: u64, epoch: usize, id: &str) -> ChaCha8Rng {
    let digest = Sha256::new()
        .chain_update(format!("{what} {seed} {epoch}"))
        .chain_update([0])
        .chain_update(id)
        .finalize();
    ChaCha8Rng::from_seed(digest.into())
}
