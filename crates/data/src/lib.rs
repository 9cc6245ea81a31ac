//! Reviews: from a delimited text file to batches that a BERT can train on.
//!
//! - [`read_reviews`] reads NSMC, or any other file with a text and a label column; every row counts.
//!   [`read_texts`] reads one without labels, and [`read_columns`] what a header names.
//! - [`split`] and [`subset`] choose reviews by a hash of their ids, so that a choice depends on
//!   nothing but the ids.
//! - [`BertTokenizer`] is transformers' BERT tokenizer; [`EncodedReviews`] holds what it made of the
//!   reviews, cached by content.
//! - [`ReviewLoader`] lays the reviews of a batch end to end, in an order that is a function of seed
//!   and epoch.
//! - [`pretraining`] makes a corpus of NSMC's raw crawl and masked batches of it.

mod batch;
mod diagnosis;
mod encoding;
mod error;
mod incoming;
mod loader;
pub mod pretraining;
mod review;
mod split;
mod tokenizer;
mod wordpiece;

pub use batch::{Batch, Example, ReviewBatcher};
pub use encoding::EncodedReviews;
pub use error::DataError;
pub use loader::{Order, ReviewLoader};
pub use review::{
    Format, Review, check_class_counts, read_columns, read_reviews, read_texts, stand_in,
};
pub use split::{Split, epoch_order, split, subset};
pub use tokenizer::{BertTokenizer, Encoding};
