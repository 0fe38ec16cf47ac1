//! Computes the calls of an OVER clause over rows that lie in order.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::Accumulator;
use mainstem_plan::aggregate::CompiledAggregate;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{Frame, OverAggregate, OverCall, RankFunction};

use super::frames::{Frames, Segment, SegmentFrames};
use crate::error::EngineError;
use crate::keys::typed;

type Computed<T> = Result<T, DataFusionError>;

/// See the module.
pub(crate) struct Evaluator {
    name: String,
    calls: Vec<Call>,
    /// The type of each result.
    types: Vec<DataType>,
    pub(crate) frames: Frames,
}

enum Call {
    Aggregate(Box<CompiledAggregate>, How),
    Rank(RankFunction),
    Lag { column: usize, offset: i64, default: Option<usize> },
}

/// How an aggregate moves from one frame to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Nothing ever leaves the frame.
    Growing,
    /// What leaves the frame is taken out of the aggregate. Only where that is exact.
    Sliding,
    /// Each frame is aggregated anew.
    Anew,
}

/// What a partition carries from the rows before to those that follow, instead of the rows.
pub(crate) struct Carry {
    /// Rows before.
    pub(crate) rows: i64,
    /// Different values of the order before.
    pub(crate) distinct: i64,
    /// The aggregates of all rows before, by call; only those whose frame has no beginning.
    pub(crate) accumulators: Vec<Option<Box<dyn Accumulator>>>,
}

impl Carry {
    /// Bytes of memory beside the place itself.
    pub(crate) fn bytes(&self) -> usize {
        let accumulators = self.accumulators.iter().flatten().map(|accumulator| accumulator.size()).sum::<usize>();
        crate::memory::of_vec(&self.accumulators) + accumulators
    }
}

impl Evaluator {
    /// Compiles the calls. `output`: columns of the operator's output. `has_peers`: whether rows can be equal in
    /// the order.
    pub(crate) fn new(
        name: &str,
        over: &OverAggregate,
        output: &SchemaRef,
        has_peers: bool,
        context: &EvalContext,
    ) -> Result<Self, EngineError> {
        let input: Vec<DataType> = over.input_schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let types = output.fields()[input.len()..].iter().map(|field| field.data_type().clone()).collect();
        let frames = Frames::new(over.frame, &over.order, has_peers, &input);
        let calls = over.calls.iter().map(|call| Call::new(call, over, context)).collect::<Result<_, _>>()?;
        let frames = frames.map_err(|e| EngineError::arrow(name, &e))?;
        Ok(Evaluator { name: name.to_owned(), calls, types, frames })
    }

    /// What the first rows of a partition carry.
    pub(crate) fn nothing(&self) -> Result<Carry, EngineError> {
        let new = |call: &Call| match call {
            Call::Aggregate(aggregate, How::Growing) => aggregate.accumulator().map(Some),
            _ => Ok(None),
        };
        let accumulators = self.calls.iter().map(new).collect::<Computed<_>>();
        Ok(Carry { rows: 0, distinct: 0, accumulators: accumulators.map_err(|e| self.failed(&e))? })
    }

    /// The same from what a checkpoint holds: for each aggregate that is carried, its state.
    pub(crate) fn carried(&self, rows: i64, distinct: i64, states: &[Vec<ArrayRef>]) -> Result<Carry, EngineError> {
        let mut carry = self.nothing()?;
        carry.rows = rows;
        carry.distinct = distinct;
        for (accumulator, state) in carry.accumulators.iter_mut().flatten().zip(states) {
            accumulator.merge_batch(state).map_err(|e| self.failed(&e))?;
        }
        Ok(carry)
    }

    /// The state columns of each aggregate that is carried.
    pub(crate) fn state_types(&self) -> Result<Vec<Vec<DataType>>, EngineError> {
        let carried = self.calls.iter().filter_map(|call| match call {
            Call::Aggregate(aggregate, How::Growing) => Some(aggregate),
            _ => None,
        });
        let types = carried
            .map(|aggregate| Ok(aggregate.state_fields()?.iter().map(|field| field.data_type().clone()).collect()));
        types.collect()
    }

    /// Whether anything but rows is carried on.
    pub(crate) fn carries(&self) -> bool {
        self.calls.iter().any(|call| matches!(call, Call::Aggregate(_, How::Growing) | Call::Rank(_)))
    }

    /// How many rows before a row its result may depend on besides its frame, and how many behind it.
    pub(crate) fn reach(&self) -> (usize, usize) {
        let lags = self.calls.iter().filter_map(|call| match call {
            Call::Lag { offset, .. } => Some(*offset),
            _ => None,
        });
        let (mut before, mut behind) = (0, 0);
        for offset in lags {
            before = before.max(usize::try_from(offset).unwrap_or(0));
            behind = behind.max(usize::try_from(offset.saturating_neg()).unwrap_or(0));
        }
        (before, behind)
    }

    fn failed(&self, error: &DataFusionError) -> EngineError {
        EngineError::evaluation(&self.name, error)
    }

    /// The results of the wanted rows of all segments, one array a call. What a segment's partition carries is that
    /// of the rows before the first wanted one, and afterwards that of the last one.
    pub(crate) fn evaluate(
        &self,
        rows: &RecordBatch,
        segments: &[Segment],
        carries: &mut [Carry],
    ) -> Result<Vec<ArrayRef>, EngineError> {
        let ordered = self.frames.read(rows).map_err(|e| EngineError::arrow(&self.name, &e))?;
        let frames: Vec<SegmentFrames> = segments.iter().map(|segment| self.frames.of(&ordered, segment)).collect();
        let mut results = Vec::with_capacity(self.calls.len());
        for (nth, (call, data_type)) in self.calls.iter().zip(&self.types).enumerate() {
            let column = match call {
                Call::Aggregate(aggregate, how) => {
                    let input = Input::of(aggregate, rows).map_err(|e| self.failed(&e))?;
                    let mut values = Vec::new();
                    for ((segment, frames), carry) in segments.iter().zip(&frames).zip(carries.iter_mut()) {
                        let carried = &mut carry.accumulators[nth];
                        let computed =
                            aggregate_segment(aggregate, *how, &input, segment, frames, carried, &mut values);
                        computed.map_err(|e| self.failed(&e))?;
                    }
                    array_of(values, data_type).map_err(|e| self.failed(&e))?
                }
                Call::Rank(function) => {
                    let each = segments.iter().zip(&frames).zip(carries.iter());
                    let numbers = each.flat_map(|((segment, frames), carry)| number(*function, segment, frames, carry));
                    Arc::new(numbers.collect::<Int64Array>())
                }
                Call::Lag { column, offset, default } => {
                    let lagged = lag(rows, segments, *column, *offset, *default);
                    lagged.map_err(|e| EngineError::arrow(&self.name, &e))?
                }
            };
            results.push(typed(&column, data_type).map_err(|e| EngineError::arrow(&self.name, &e))?);
        }
        for ((segment, frames), carry) in segments.iter().zip(&frames).zip(carries.iter_mut()) {
            carry.rows += (segment.give_end - segment.give) as i64;
            let given = segment.give..segment.give_end;
            carry.distinct += given.filter(|row| frames.first_peers[row - segment.begin] == *row).count() as i64;
        }
        Ok(results)
    }
}

impl Call {
    fn new(call: &OverCall, over: &OverAggregate, context: &EvalContext) -> Result<Call, EngineError> {
        Ok(match call {
            OverCall::Aggregate(aggregate) => {
                let compiled = aggregate.compile(&over.input_schema, context)?;
                let bounded = match over.frame {
                    Frame::Rows { preceding } => preceding.is_some(),
                    Frame::Range { preceding } => preceding.is_some(),
                };
                let types =
                    compiled.args.iter().map(|arg| arg.data_type(&over.input_schema)).collect::<Computed<Vec<_>>>();
                let exact = types.map_err(|e| EngineError::evaluation(&aggregate.name, &e))?.iter().all(is_exact);
                let how = match bounded {
                    false => How::Growing,
                    true if exact && !aggregate.distinct && compiled.sliding_accumulator().is_ok() => How::Sliding,
                    true => How::Anew,
                };
                Call::Aggregate(Box::new(compiled), how)
            }
            OverCall::Rank(function) => Call::Rank(*function),
            OverCall::Lag { column, offset, default } => {
                Call::Lag { column: *column, offset: *offset, default: *default }
            }
        })
    }
}

/// Whether sums do not depend on the order in which they are made.
fn is_exact(data_type: &DataType) -> bool {
    !data_type.is_floating() && !data_type.is_nested()
}

/// The arguments of an aggregate for all rows of a batch.
struct Input {
    args: Vec<ArrayRef>,
    filter: Option<BooleanArray>,
}

impl Input {
    fn of(aggregate: &CompiledAggregate, rows: &RecordBatch) -> Computed<Input> {
        let count = rows.num_rows();
        let value = |expr: &Arc<dyn datafusion_physical_expr_common::physical_expr::PhysicalExpr>| {
            expr.evaluate(rows).and_then(|value| value.into_array(count))
        };
        let args = aggregate.args.iter().map(value).collect::<Computed<Vec<_>>>()?;
        let filter = aggregate.filter.as_ref().map(value).transpose()?;
        // NULL is not true.
        let filter = filter.map(|filter| compute::prep_null_mask_filter(filter.as_boolean()));
        Ok(Input { args, filter })
    }

    fn slice(&self, begin: usize, end: usize) -> Computed<Vec<ArrayRef>> {
        let slices = self.args.iter().map(|arg| arg.slice(begin, end - begin));
        let Some(filter) = &self.filter else { return Ok(slices.collect()) };
        let mask = filter.slice(begin, end - begin);
        Ok(slices.map(|slice| compute::filter(&slice, &mask)).collect::<Result<_, _>>()?)
    }
}

fn aggregate_segment(
    aggregate: &CompiledAggregate,
    how: How,
    input: &Input,
    segment: &Segment,
    frames: &SegmentFrames,
    carried: &mut Option<Box<dyn Accumulator>>,
    values: &mut Vec<ScalarValue>,
) -> Computed<()> {
    let mut fresh: Option<Box<dyn Accumulator>> = match how {
        How::Sliding => Some(aggregate.sliding_accumulator()?),
        How::Growing | How::Anew => None,
    };
    // What the accumulator holds.
    let (mut low, mut high) = match how {
        How::Growing => (segment.give, segment.give),
        _ => (segment.begin, segment.begin),
    };
    let mut last = None;
    for frame in &frames.frames {
        // Rows that are equal in a RANGE see the same.
        if last.as_ref() == Some(&frame) {
            values.push(values[values.len() - 1].clone());
            continue;
        }
        last = Some(frame);
        let accumulator = match how {
            How::Growing => carried.as_mut().expect("made with the partition"),
            How::Sliding => fresh.as_mut().expect("made above"),
            How::Anew => {
                (low, high) = (frame.start, frame.start);
                fresh.insert(aggregate.accumulator()?)
            }
        };
        if frame.end > high {
            accumulator.update_batch(&input.slice(high, frame.end)?)?;
            high = frame.end;
        }
        if how == How::Sliding && frame.start > low {
            accumulator.retract_batch(&input.slice(low, frame.start)?)?;
            low = frame.start;
        }
        values.push(accumulator.evaluate()?);
    }
    Ok(())
}

fn array_of(values: Vec<ScalarValue>, data_type: &DataType) -> Computed<ArrayRef> {
    if values.is_empty() {
        return Ok(arrow::array::new_empty_array(data_type));
    }
    ScalarValue::iter_to_array(values)
}

fn number(function: RankFunction, segment: &Segment, frames: &SegmentFrames, carry: &Carry) -> Vec<i64> {
    let mut distinct = carry.distinct;
    let mut last_peer = usize::MAX;
    let each = (segment.give..segment.give_end).map(|row| {
        let first_peer = frames.first_peers[row - segment.begin];
        if first_peer != last_peer {
            distinct += 1;
            last_peer = first_peer;
        }
        match function {
            RankFunction::RowNumber => carry.rows + (row - segment.give) as i64 + 1,
            RankFunction::Rank => carry.rows + (first_peer - segment.give) as i64 + 1,
            RankFunction::DenseRank => distinct,
        }
    });
    each.collect()
}

fn lag(
    rows: &RecordBatch,
    segments: &[Segment],
    column: usize,
    offset: i64,
    default: Option<usize>,
) -> Result<ArrayRef, arrow::error::ArrowError> {
    let mut sources: Vec<Option<u64>> = Vec::new();
    let mut given: Vec<u64> = Vec::new();
    for segment in segments {
        let (begin, end) = (segment.begin as i64, segment.end as i64);
        for row in segment.give..segment.give_end {
            let source = (row as i64).checked_sub(offset).filter(|source| (begin..end).contains(source));
            sources.push(source.map(|source| source as u64));
            given.push(row as u64);
        }
    }
    let values = rows.column(column);
    let Some(default) = default else { return compute::take(values, &UInt64Array::from(sources), None) };
    let defaults = compute::cast(rows.column(default), values.data_type())?;
    let both: [&dyn Array; 2] = [values.as_ref(), defaults.as_ref()];
    let places = sources.iter().zip(&given).map(|(source, row)| match source {
        Some(source) => (0, *source as usize),
        None => (1, *row as usize),
    });
    compute::interleave(&both, &places.collect::<Vec<_>>())
}
