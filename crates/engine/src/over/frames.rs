//! Which rows of an ordered partition each row sees, and which are equal to it in the order.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use mainstem_plan::operator::{Frame, SortKey};

use crate::rank::sort_options;

const MS_PER_DAY: i64 = 86_400_000;

/// Reads frames out of rows.
pub(crate) struct Frames {
    frame: Frame,
    order: Vec<SortKey>,
    /// Makes rows of the order columns comparable; absent where no two rows are equal in the order.
    peers: Option<RowConverter>,
}

/// A part of a partition, in order: the rows from `begin` to `end` lie side by side in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The first row.
    pub(crate) begin: usize,
    /// The first row whose result is wanted; those before it are only seen by others.
    pub(crate) give: usize,
    /// One behind the last row whose result is wanted.
    pub(crate) give_end: usize,
    /// One behind the last row.
    pub(crate) end: usize,
}

/// The frames of the rows of one segment.
pub(crate) struct SegmentFrames {
    /// For each row whose result is wanted: the rows that it sees.
    pub(crate) frames: Vec<Range<usize>>,
    /// For each row of the segment: the first row that is equal to it in the order.
    pub(crate) first_peers: Vec<usize>,
}

/// What frames need to know of a batch.
pub(crate) struct Ordered {
    rows: Option<Rows>,
    /// The first column of the order, in its own unit, turned round where the order is descending.
    values: Option<Int64Array>,
    distance: i64,
}

/// How many of the column's units a distance in milliseconds is; a number's unit is one.
fn distance_in_units(data_type: &DataType, distance: i64) -> i64 {
    match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => distance.div_euclid(1_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => distance.saturating_mul(1_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => distance.saturating_mul(1_000_000),
        DataType::Date32 => distance.div_euclid(MS_PER_DAY),
        _ => distance,
    }
}

/// The values of the first order column by which distances are measured; ascending in the order.
pub(crate) fn distance_values(order: &SortKey, rows: &RecordBatch) -> Result<Int64Array, ArrowError> {
    let values = compute::cast(rows.column(order.column), &DataType::Int64)?;
    let values = values.as_primitive::<Int64Type>();
    Ok(match order.descending {
        true => compute::kernels::arity::unary(values, |value: i64| !value),
        false => values.clone(),
    })
}

impl Frames {
    /// For an order over columns of these types. `has_peers`: whether rows can be equal in the order.
    pub(crate) fn new(
        frame: Frame,
        order: &[SortKey],
        has_peers: bool,
        types: &[DataType],
    ) -> Result<Self, ArrowError> {
        let field = |key: &SortKey| SortField::new_with_options(types[key.column].clone(), sort_options(key));
        let peers = has_peers.then(|| RowConverter::new(order.iter().map(field).collect())).transpose()?;
        Ok(Frames { frame, order: order.to_vec(), peers })
    }

    /// The distance of RANGE in units of the first order column.
    pub(crate) fn distance(&self, types: &[DataType]) -> Option<i64> {
        match self.frame {
            Frame::Range { preceding: Some(distance) } => {
                Some(distance_in_units(&types[self.order[0].column], distance))
            }
            _ => None,
        }
    }

    /// Reads the order of a batch.
    pub(crate) fn read(&self, rows: &RecordBatch) -> Result<Ordered, ArrowError> {
        let columns: Vec<ArrayRef> = self.order.iter().map(|key| rows.column(key.column).clone()).collect();
        let peers = self.peers.as_ref().map(|peers| peers.convert_columns(&columns)).transpose()?;
        let (mut values, mut distance) = (None, 0);
        if let Frame::Range { preceding: Some(ms) } = self.frame {
            values = Some(distance_values(&self.order[0], rows)?);
            distance = distance_in_units(rows.column(self.order[0].column).data_type(), ms);
        }
        Ok(Ordered { rows: peers, values, distance })
    }

    /// The frames of a segment.
    pub(crate) fn of(&self, ordered: &Ordered, segment: &Segment) -> SegmentFrames {
        let Segment { begin, give, give_end, end } = *segment;
        let mut first_peers = Vec::with_capacity(end - begin);
        for row in begin..end {
            let is_peer = row > begin && ordered.rows.as_ref().is_some_and(|rows| rows.row(row - 1) == rows.row(row));
            first_peers.push(if is_peer { first_peers[row - begin - 1] } else { row });
        }
        let mut frames = Vec::with_capacity(give_end - give);
        let (mut low, mut peers_end) = (begin, give);
        for row in give..give_end {
            let frame = match self.frame {
                Frame::Rows { preceding } => {
                    let low =
                        preceding.map_or(begin, |n| row.saturating_sub(usize::try_from(n).unwrap_or(row)).max(begin));
                    low..row + 1
                }
                Frame::Range { preceding } => {
                    if peers_end <= row {
                        peers_end = row + 1;
                        while peers_end < end && first_peers[peers_end - begin] == first_peers[row - begin] {
                            peers_end += 1;
                        }
                    }
                    if preceding.is_some() {
                        while !ordered.is_near(low, row) {
                            low += 1;
                        }
                    }
                    low..peers_end
                }
            };
            frames.push(frame);
        }
        SegmentFrames { frames, first_peers }
    }
}

impl Ordered {
    /// Whether the row before is within the distance of RANGE. NULL is near to NULL only.
    fn is_near(&self, before: usize, row: usize) -> bool {
        let Some(values) = &self.values else { return true };
        match (values.is_null(before), values.is_null(row)) {
            (false, false) => values.value(row).saturating_sub(values.value(before)) <= self.distance,
            (left, right) => left == right,
        }
    }
}
