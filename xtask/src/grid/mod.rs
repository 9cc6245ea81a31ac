//! The grid behind `cargo xtask reproduce`: a plan of runs with what each waits for and costs, and
//! the runs of it, one process each, several at once.

mod display;
mod estimate;
mod kept;
mod plan;
mod process;
mod room;
mod schedule;
mod show;
mod stop;
#[cfg(all(test, unix))]
pub(crate) mod tests;
mod timing;

pub(crate) use kept::Kept;
pub(crate) use plan::{Plan, State, choose};
pub(crate) use room::Shape;
pub(crate) use schedule::{Outcome, Starting, run};
pub(crate) use show::{AtOnce, Costs, show};
pub(crate) use stop::{Stop, pass_on};
pub(crate) use timing::{Timed, time, to_time};
