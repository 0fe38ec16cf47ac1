//! How far a table's changes have been read: the connector's position. Pure.

use serde::{Deserialize, Serialize};

/// A place in the write-ahead log. Higher is later.
pub(super) type Lsn = u64;

/// What is stored of a split in checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Position {
    /// In the middle of the first copy of the table, which a restart begins anew. Rows of the snapshot may have been given.
    Copying {
        /// The first snapshot of which rows were given: what it does not hold is still to come from the log.
        snapshot: Snapshot,
    },
    /// In the log.
    Streaming {
        /// Transactions that were committed before are done.
        lsn: Lsn,
        /// Of the next transaction so many changes of the table are done.
        #[serde(default, skip_serializing_if = "is_zero")]
        changes: u64,
        /// The copy that came before: what it holds is passed over, up to where it was made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        copied: Option<Copied>,
    },
}

/// A copy of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Copied {
    /// What it holds.
    pub(super) snapshot: Snapshot,
    /// All transactions that it holds were committed before here.
    pub(super) until: Lsn,
    /// Where an earlier copy was begun, whose rows may have been given: what that does not hold, and this does, was maybe given
    /// in an older version, or is gone meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<Snapshot>,
}

/// Which transactions a snapshot holds, as `pg_current_snapshot()` says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    /// All transactions below have ended.
    xmin: u64,
    /// All transactions from here on had not begun.
    xmax: u64,
    /// Those between that were running.
    running: Vec<u64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,xip`.
    pub(super) fn parse(text: &str) -> Option<Snapshot> {
        let mut parts = text.split(':');
        let (xmin, xmax, running) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
        let running = running.split(',').filter(|xid| !xid.is_empty()).map(|xid| xid.parse().ok());
        Some(Snapshot { xmin, xmax, running: running.collect::<Option<_>>()? })
    }

    /// Whether it holds what a committed transaction has done. `xid`: the lower half of its number, which is all that the
    /// log knows; it is taken to be near the snapshot.
    pub(super) fn holds(&self, xid: u32) -> bool {
        let whole = self.nearest(xid);
        whole < self.xmin || (whole < self.xmax && !self.running.contains(&whole))
    }

    /// The number of a transaction with this lower half that is nearest to the snapshot.
    fn nearest(&self, xid: u32) -> u64 {
        let epoch = self.xmax >> 32;
        let candidates = [epoch.checked_sub(1), Some(epoch), epoch.checked_add(1)];
        let whole = candidates.into_iter().flatten().map(|epoch| epoch << 32 | u64::from(xid));
        whole.min_by_key(|whole| whole.abs_diff(self.xmax)).unwrap_or(u64::from(xid))
    }
}

/// Reads `16/B374D848`.
pub(super) fn parse_lsn(text: &str) -> Option<Lsn> {
    let (high, low) = text.split_once('/')?;
    let half = |text| u32::from_str_radix(text, 16).ok().map(u64::from);
    Some(half(high)? << 32 | half(low)?)
}

/// As PostgreSQL writes it.
pub(super) fn show_lsn(lsn: Lsn) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_knows_what_it_holds() {
        let snapshot = Snapshot::parse("10:14:11,13").unwrap();
        let held: Vec<u32> = (8..16).filter(|xid| snapshot.holds(*xid)).collect();
        assert_eq!(held, [8, 9, 10, 12]);
        assert_eq!(Snapshot::parse("5:5:").unwrap().running, Vec::<u64>::new());
        // Numbers in the log begin anew after four billion.
        let later = Snapshot::parse("4294967290:4294967300:").unwrap();
        assert!(later.holds(4_294_967_295) && later.holds(3) && !later.holds(4));
        assert_eq!(Snapshot::parse("5:6"), None);
    }

    #[test]
    fn places_have_the_form_of_the_server() {
        assert_eq!(parse_lsn("16/B374D848"), Some(0x16_B374_D848));
        assert_eq!(show_lsn(0x16_B374_D848), "16/B374D848");
        let position = Position::Streaming { lsn: 7, changes: 0, copied: None };
        assert_eq!(serde_json::to_string(&position).unwrap(), r#"{"streaming":{"lsn":7}}"#);
    }
}
