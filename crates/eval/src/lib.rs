//! What predictions say of a model: metrics, the paper's own figures, and tables that show both.
//!
//! Numbers only: no tensors, no burn. Every figure that is reported anywhere comes from here, over
//! the predictions a run saved, so that anyone can recompute it.

pub mod compare;
mod confusion;
mod error;
mod paper;
mod prediction;
mod report;
mod results;
pub mod statistics;
pub mod study;
mod table;
mod words;

pub use confusion::{ClassMetrics, ConfusionMatrix};
pub use error::EvalError;
pub use paper::{PAPER, PaperRow};
pub use prediction::{Prediction, Predictions, class_of};
pub use report::{BatchMean, ClassificationReport};
pub use results::{EvaluatedRun, paper_table, results_table};
pub use table::{Table, duration, minutes_and_seconds, paragraph, with_thousands};
pub use words::{BilingualTable, Words, method_words, size_words};
