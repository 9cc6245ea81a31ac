//! The memory allocator: mimalloc, which keeps what it has freed.
//!
//! A training step allocates and frees the same tensors as the one before it. An allocator that
//! returns their pages to the system has them cleared by the kernel again and again: a third of a
//! step of BERT-base.
#![expect(unsafe_code, reason = "the allocator's options are set through its C interface")]

use libmimalloc_sys::mi_option_set;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay`: milliseconds after which free pages go back to the system.
const PURGE_DELAY: i32 = 15;

/// Keeps free memory until the program ends, unless `MIMALLOC_PURGE_DELAY` says otherwise.
pub(crate) fn keep_memory() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: sets a number that the allocator reads when it frees; valid at any time.
        unsafe { mi_option_set(PURGE_DELAY, -1) }
    }
}
