//! The operations around BERT's matrix products, each as one kernel with its own gradient.
//!
//! On a CPU, burn's `flex` backend computes matrix products as fast as PyTorch does, and most of a
//! training step's time goes into what lies around them: chains of elementwise operations on one
//! thread, each with a new tensor for its result. Here each such chain is one pass over the data, on
//! all threads, in vector instructions chosen at run time.
//!
//! Every function has two bodies that compute the same mathematics: a kernel for `flex` with `f32`
//! tensors, and a composition of burn's own operations for every other backend and type. Tests
//! compare the two, values and gradients.
//!
//! Tensors have at least one element: a batch without a row is a mistake of the caller's, and panics.
//!
//! Results do not depend on the number of threads: sums are taken over fixed blocks, in order.

#![allow(clippy::many_single_char_names, reason = "the formulas' own letters")]
#![expect(
    clippy::inline_always,
    reason = "what is not inlined into a kernel does without its vector instructions"
)]

mod adamw;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod chain;
mod dropout;
mod extension;
mod gather;
mod gelu;
mod layer_norm;
mod linear;
mod math;
mod matrix;
mod norm;
mod parallel;
mod precision;
mod row_attention;
mod sequences;
mod storage;

pub use adamw::{AdamWStep, Moments, adamw_step};
pub use attention::attention;
pub use dropout::dropout;
pub use gather::gather;
pub use gelu::gelu;
pub use layer_norm::LayerNorm;
pub use linear::{LowRank, linear, low_rank_linear, multiply};
pub use matrix::{has_amx, set_amx};
pub use norm::{scale, sum_of_squares};
pub use precision::set_bf16_products;
pub use row_attention::row_attention;
pub use sequences::{OutputRows, Sequences, int_tensor};
pub use storage::is_cpu;
