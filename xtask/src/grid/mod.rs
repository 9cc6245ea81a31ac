//! The grid behind `cargo xtask reproduce`: a plan of runs with what each waits for and costs, and
//! the runs of it, one process each, several at once.

mod display;
mod estimate;
mod plan;
mod process;
mod room;
mod schedule;
mod show;
mod stop;
#[cfg(all(test, unix))]
pub(crate) mod tests;
mod timing;

pub(crate) use plan::{Job, Plan, State};
pub(crate) use schedule::{Starting, run};
pub(crate) use show::{AtOnce, Costs, show};
pub(crate) use stop::Stop;
pub(crate) use timing::{time, to_time};
