//! The arithmetic of windows and slices: which slice a time falls in, which windows cover a slice. A slice is
//! the longest stretch of time whose rows all belong to the same windows.

use mainstem_plan::operator::WindowKind;

/// A stretch of event time, `start..end`, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span {
    // The end comes first so that spans order by when they close.
    /// One past the last millisecond.
    pub(crate) end: i64,
    /// First millisecond.
    pub(crate) start: i64,
}

impl Span {
    /// Whether nothing of the span can come any more once the watermark has reached this point.
    pub(crate) fn is_closed_at(&self, watermark: i64) -> bool {
        self.end - 1 <= watermark
    }
}

/// Windows that are made of slices.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slicing {
    /// Windows of `size`, one starting each `slide`, which divides `size`; slices are `slide` long.
    Sliding {
        /// Distance of the starts.
        slide: i64,
        /// Length.
        size: i64,
        /// Shift of the starts.
        offset: i64,
    },
    /// Windows that grow by `step` up to `size`, which it divides; slices are `step` long.
    Growing {
        /// Growth.
        step: i64,
        /// Greatest length.
        size: i64,
        /// Shift of the starts.
        offset: i64,
    },
    /// Each row carries its window, which is its slice.
    Given,
}

impl Slicing {
    /// The slicing of a kind of window; none for sessions, which have no slices.
    pub(crate) fn of(window: &WindowKind) -> Option<Slicing> {
        Some(match *window {
            WindowKind::Tumble { size_ms, offset_ms } => {
                Slicing::Sliding { slide: size_ms, size: size_ms, offset: offset_ms }
            }
            WindowKind::Hop { slide_ms, size_ms, offset_ms } => {
                Slicing::Sliding { slide: slide_ms, size: size_ms, offset: offset_ms }
            }
            WindowKind::Cumulate { step_ms, size_ms, offset_ms } => {
                Slicing::Growing { step: step_ms, size: size_ms, offset: offset_ms }
            }
            WindowKind::Attached { .. } => Slicing::Given,
            WindowKind::Session { .. } => return None,
        })
    }

    /// The slice that a time falls in. Not for [`Slicing::Given`].
    pub(crate) fn slice_of(&self, time: i64) -> Span {
        let (length, offset) = match *self {
            Slicing::Sliding { slide, offset, .. } => (slide, offset),
            Slicing::Growing { step, offset, .. } => (step, offset),
            Slicing::Given => (1, 0),
        };
        let start = time - (time - offset).rem_euclid(length);
        Span { start, end: start + length }
    }

    /// The windows that cover a slice, by increasing end.
    pub(crate) fn windows_of(&self, slice: Span) -> impl Iterator<Item = Span> + use<> {
        let (first, step, last, fixed_start) = match *self {
            Slicing::Sliding { slide, size, .. } => (slice.end, slide, slice.start + size, None),
            Slicing::Growing { step, size, offset } => {
                let start = slice.start - (slice.start - offset).rem_euclid(size);
                (slice.end, step, start + size, Some(start))
            }
            Slicing::Given => (slice.end, 1, slice.end, Some(slice.start)),
        };
        let size = match *self {
            Slicing::Sliding { size, .. } => size,
            _ => 0,
        };
        let ends = std::iter::successors(Some(first), move |end| Some(end + step)).take_while(move |end| *end <= last);
        ends.map(move |end| Span { end, start: fixed_start.unwrap_or(end - size) })
    }

    /// Whether each window is one slice.
    pub(crate) fn is_single(&self) -> bool {
        match *self {
            Slicing::Sliding { slide, size, .. } => slide == size,
            Slicing::Growing { step, size, .. } => step == size,
            Slicing::Given => true,
        }
    }

    /// The first window over a slice that is not closed at this watermark. Not for slices all of whose windows are.
    pub(crate) fn first_open(&self, slice: Span, watermark: i64) -> Span {
        let step = match *self {
            Slicing::Sliding { slide, .. } => slide,
            Slicing::Growing { step, .. } => step,
            Slicing::Given => return slice,
        };
        let behind = watermark.saturating_add(1).saturating_sub(slice.end);
        let end = if behind < 0 { slice.end } else { slice.end + (behind / step + 1) * step };
        let start = match *self {
            Slicing::Sliding { size, .. } => end - size,
            _ => self.last_end(slice) - self.size(),
        };
        Span { end, start }
    }

    /// The window that ends next, with or without rows.
    pub(crate) fn after(&self, window: Span) -> Span {
        let Span { start, end } = window;
        match *self {
            Slicing::Sliding { slide, .. } => Span { start: start + slide, end: end + slide },
            Slicing::Growing { step, size, .. } => {
                Span { start: if end - start < size { start } else { end }, end: end + step }
            }
            Slicing::Given => window,
        }
    }

    /// Where a window is divided for the sake of merging: the same point for all windows that start in one stretch of
    /// `size`, and for all that grow from one start. See [`super::block`].
    pub(crate) fn split_of(&self, window: Span) -> i64 {
        match *self {
            Slicing::Sliding { size, offset, .. } => window.start - (window.start - offset).rem_euclid(size) + size,
            Slicing::Growing { .. } | Slicing::Given => window.start,
        }
    }

    fn size(&self) -> i64 {
        match *self {
            Slicing::Sliding { size, .. } | Slicing::Growing { size, .. } => size,
            Slicing::Given => 0,
        }
    }

    /// The end of the last window that covers a slice.
    pub(crate) fn last_end(&self, slice: Span) -> i64 {
        match *self {
            Slicing::Sliding { size, .. } => slice.start + size,
            Slicing::Growing { size, offset, .. } => slice.start - (slice.start - offset).rem_euclid(size) + size,
            Slicing::Given => slice.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(slicing: Slicing, time: i64) -> Vec<(i64, i64)> {
        slicing.windows_of(slicing.slice_of(time)).map(|w| (w.start, w.end)).collect()
    }

    #[test]
    fn windows_cover_their_times() {
        let hop = Slicing::Sliding { slide: 2, size: 6, offset: 0 };
        assert_eq!(windows(hop, 7), vec![(2, 8), (4, 10), (6, 12)]);
        assert_eq!(windows(hop, -1), vec![(-6, 0), (-4, 2), (-2, 4)]);
        let tumble = Slicing::Sliding { slide: 10, size: 10, offset: 3 };
        assert_eq!(windows(tumble, 2), vec![(-7, 3)]);
        assert_eq!(windows(tumble, 3), vec![(3, 13)]);
        let cumulate = Slicing::Growing { step: 2, size: 6, offset: 0 };
        assert_eq!(windows(cumulate, 3), vec![(0, 4), (0, 6)]);
        assert_eq!(windows(cumulate, 5), vec![(0, 6)]);
        assert_eq!(Slicing::Given.windows_of(Span { start: 1, end: 9 }).count(), 1);
        for time in -20..20 {
            for slicing in [hop, tumble, cumulate] {
                let slice = slicing.slice_of(time);
                assert!(slicing.windows_of(slice).all(|w| w.start <= time && time < w.end));
                assert_eq!(slicing.windows_of(slice).last().map(|w| w.end), Some(slicing.last_end(slice)));
                let windows: Vec<Span> = slicing.windows_of(slice).collect();
                assert!(windows.windows(2).all(|pair| slicing.after(pair[0]) == pair[1]), "{windows:?}");
                for watermark in slice.end - 3..slicing.last_end(slice) - 1 {
                    let open = slicing.windows_of(slice).find(|w| !w.is_closed_at(watermark));
                    assert_eq!(Some(slicing.first_open(slice, watermark)), open, "{slicing:?} {slice:?} {watermark}");
                }
            }
        }
    }
}
