//! What operators say of the memory that they take, against the allocator's figures.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use super::*;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, with the bytes that a thread has taken and not given back.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: isize) {
    // A thread that ends has no counter any more.
    let _ = LIVE.try_with(|live| live.set(live.get() + bytes));
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Feeds rows of many keys and ends an epoch. Gives what it takes, and what it says.
fn figures(name: &str, subject: &Subject) -> (f64, f64) {
    let before = LIVE.with(Cell::get);
    let mut operator = (subject.make)();
    for number in 0..40_i64 {
        for input in 0..subject.inputs {
            let row = |n: i64| (((number * 1000 + n) * 7919 % 30_000, number * 1000 + n, n), ChangeKind::Insert);
            let rows: Vec<(Row, ChangeKind)> = (0..1000).map(row).collect();
            process_whole(operator.as_mut(), input, batch(subject, &rows));
        }
        operator.flush_held(&mut Collector::default()).unwrap();
    }
    drop(operator.capture(Epoch(1)).unwrap());
    let taken = (LIVE.with(Cell::get) - before) as f64;
    let said = operator.state_bytes() as f64;
    assert!(taken > 1e6, "{name}: {taken} bytes are no measure");
    (taken, said)
}

#[test]
fn operators_say_what_they_take() {
    let subjects = [
        ("aggregate", aggregate(None)),
        ("windows", windows()),
        ("join", join(None)),
        ("interval", interval()),
        ("rank", rank(false, None)),
        ("over", over()),
    ];
    let figures = subjects.map(|(name, subject)| (name, figures(name, &subject)));
    let is_right = |(taken, said): (f64, f64)| (0.8..1.25).contains(&(said / taken));
    let wrong = figures.iter().filter(|(_, figures)| !is_right(*figures)).count();
    assert!(wrong == 0, "what they take, and what they say: {figures:?}");
}
