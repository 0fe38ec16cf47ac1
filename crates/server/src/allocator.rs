//! The allocator. Arrow buffers are large and short-lived, and are freed by other threads than those that made them.

use std::ffi::c_long;

/// `mi_option_purge_delay` of mimalloc's C interface; the binding does not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// How long freed memory is kept before it goes back to the system, in milliseconds. Batches are freed and made all
/// the time: with mimalloc's own 10 ms the system takes and clears the same pages again and again, which was more
/// than half of the time of joins with long rows.
const PURGE_DELAY_MS: c_long = 2_000;
/// The same where state had to be put aside.
const SCARCE_PURGE_DELAY_MS: c_long = 10;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sets the allocator's options; the user's environment (`MIMALLOC_PURGE_DELAY`) goes before them.
pub(crate) fn configure() {
    #[expect(unsafe_code, reason = "a call of C that sets a number")]
    // SAFETY: the function may be called at any time, and the option exists in this version of the library.
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS);
    }
}

/// From here on memory is scarce: it goes back to the system after mimalloc's own delay, at that cost.
pub(crate) fn give_back_soon() {
    #[expect(unsafe_code, reason = "a call of C that sets a number")]
    // SAFETY: as above.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, SCARCE_PURGE_DELAY_MS);
    }
}
