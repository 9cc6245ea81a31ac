//! End-to-end tests through the real program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod baselines;
mod compare;
mod devices;
mod full_disk;
mod grid;
mod integrity;
mod kill;
mod methods;
mod power_loss;
mod predict;
mod pretrain;
#[cfg(unix)]
mod signals;
mod train;
mod world;
