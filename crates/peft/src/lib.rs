//! Fine-tuning methods over [`nsmc_bert`]: what is added to the model, and what of it trains.
//!
//! [`PeftModel`] is a classifier under a method. Full fine-tuning adds nothing and trains every
//! weight; the others freeze the base and train what they add:
//!
//! - bottleneck adapters ([`BottleneckConfig`]) after Pfeiffer and after Houlsby, with NICE
//!   invertible adapters, one after the other ([`Composition::Stack`]) or
//! - side by side under AdapterFusion ([`FusionConfig`], [`Composition::Fuse`]);
//! - LoRA ([`LoraConfig`]), computed as `x · A · B`, with rsLoRA and DoRA.
//!
//! They compute what the Python libraries `adapters` and `peft` compute, and read and write their
//! files ([`adapterhub`], [`peft_files`], [`loralib`]).

#![recursion_limit = "256"]

pub mod adapterhub;
mod adapters;
mod bottleneck;
mod bundle;
mod checkpoint;
mod composition;
mod error;
mod fusion;
mod head;
mod invertible;
mod library_files;
mod lora;
mod lora_targets;
pub mod loralib;
mod masked_lm;
mod model;
mod names;
mod parameters;
pub mod peft_files;
mod torch_file;
mod trains;

pub use adapterhub::{HeadKind, LoadOptions};
pub use adapters::{Adapter, AdapterLayer, Adapters, Fusion, FusionLayer};
pub use bottleneck::{AdapterResidual, BottleneckAdapter, BottleneckConfig, InvertibleConfig};
pub use composition::Composition;
pub use error::PeftError;
pub use fusion::{AdapterFusion, FusionConfig};
pub use head::ClassificationHead;
pub use invertible::{CouplingNetwork, NiceCouplingBlock};
pub use lora::{Lora, LoraConfig, LoraEmbedding, LoraLayer, LoraLinear};
pub use lora_targets::{LoraSite, TargetModules};
pub use masked_lm::AdaptedMaskedLm;
pub use model::{FusionWeights, PeftModel};
pub use parameters::ParameterCounts;
pub use trains::{Bias, Trains};
