//! Takes chance out of the process: the standard library seeds its hash maps, and tokio the order in which `select!` looks,
//! from the system's `getrandom`, which the library lets a program replace. Only in this test binary, where nothing needs
//! real chance; every thread gets the same numbers.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0x9e37_79b9_7f4a_7c15) };
}

/// In the place of the C library's function of this name.
#[expect(unsafe_code, reason = "the function of the C library that this replaces takes a pointer")]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller gives so many bytes to be written; that is what the function is for.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    for byte in bytes {
        // Marsaglia's xorshift.
        let mut state = STATE.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        STATE.set(state);
        *byte = (state >> 32) as u8;
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}
