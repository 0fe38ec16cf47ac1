//! Joins: of tables that change, and those whose state time releases (by intervals of event time, by windows, with
//! versions of a table, with a table that is looked up).

mod interval;
mod kept_rows;
mod key_index;
mod lookup;
mod pairs;
mod regular;
mod row_room;
mod temporal;
#[cfg(test)]
mod testing;
mod window;

pub(crate) use self::interval::IntervalJoin;
pub(crate) use self::key_index::KeyFormat;
pub(crate) use self::lookup::{KeyedLookup, LOOKUP_BYTES_MAX, LookupJoin, LookupLoader};
pub(crate) use self::regular::{NotIn, RegularJoin, SetOperation};
pub(crate) use self::temporal::TemporalJoin;
pub(crate) use self::window::WindowJoin;
