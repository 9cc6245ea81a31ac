//! Fine-tuning methods over [`nsmc_bert`]: what is added to the model, and what of it trains.
//!
//! [`PeftModel`] is a classifier under a method. Full fine-tuning adds nothing and trains every
//! weight.

mod model;
mod parameters;

pub use model::PeftModel;
pub use parameters::ParameterCounts;
