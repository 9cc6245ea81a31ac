//! BERT (Devlin et al., 2019) in burn, for training, over unpadded batches.
//!
//! The modules mirror transformers' `modeling_bert.py` in structure and names, so that a Hugging
//! Face checkpoint maps onto them one to one. Two things differ in form, not in result:
//!
//! - Hidden states are rows, `[total_tokens, hidden_size]`: the sequences of a batch laid end to
//!   end ([`BertInput`], [`Sequences`]). Only attention knows where one ends.
//! - A fine-tuning method changes the forward pass from outside, through [`Hooks`]: this crate knows
//!   no adapter. [`NoHooks`] is plain BERT.
//!
//! ```
//! use burn::tensor::Device;
//! use nsmc_bert::{BertConfig, BertForSequenceClassification, BertInput, NoHooks};
//!
//! let config: BertConfig = serde_json::from_str(
//!     r#"{"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
//!         "intermediate_size": 16, "max_position_embeddings": 16}"#,
//! ).unwrap();
//! let device = Device::flex();
//! let model = BertForSequenceClassification::new(&config, 42, &device);
//! let input = BertInput::from_ids(&[vec![2, 7, 3], vec![2, 9, 9, 4, 3]], &device);
//! assert_eq!(model.forward(&input, &NoHooks).dims(), [2, 2]);
//! ```

mod activation;
mod attention;
mod checkpoint;
mod config;
mod embeddings;
mod encoder;
mod error;
mod hooks;
mod init;
mod input;
mod layer;
mod masked_lm;
mod model;
mod sequence_classification;

pub use activation::Activation;
pub use attention::{BertAttention, BertSelfAttention, BertSelfOutput};
pub use checkpoint::{
    Tensors, load_by_path, load_state_dict, read_tensors, save_pretrained, state_dict, torch_name,
};
pub use config::BertConfig;
pub use embeddings::BertEmbeddings;
pub use encoder::BertEncoder;
pub use error::CheckpointError;
pub use hooks::{EmbeddingSite, Hooks, LinearSite, NoHooks, SublayerSite};
pub use init::Init;
pub use input::BertInput;
pub use layer::{BertIntermediate, BertLayer, BertOutput};
pub use masked_lm::{
    BertForMaskedLm, BertLmHeads, BertLmPredictionHead, BertPredictionHeadTransform,
};
pub use model::{BertModel, BertPooler};
pub use nsmc_ops::{LayerNorm, Sequences, int_tensor};
pub use sequence_classification::BertForSequenceClassification;
