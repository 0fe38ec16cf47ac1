//! Makes Arrow columns of Nexmark events, one column at a time, and only those that are asked for. Called by
//! the shared reader of the generators. This is a benchmark's inner loop: no allocation and no dispatch a row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, make_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, SchemaRef, TimeUnit};

use crate::error::ConnectorError;
use crate::generator::{Cursor, RowGenerator};

use super::declared::{Column, Field};
use super::stream::{Event, Kind, Stream};
use super::text::{self, Channels};

/// Numbers looked at in one call, at most, where few of them give a row; some ms of work.
const NUMBERS_MAX: u64 = 1 << 20;

/// Makes batches of events.
pub(super) struct EventGenerator {
    stream: Stream,
    /// The only kind that is given; absent: all.
    kind: Option<Kind>,
    schema: SchemaRef,
    columns: Vec<Column>,
    channels: Channels,
    /// Events of the batch at hand; kept for its memory.
    events: Vec<Event>,
}

impl EventGenerator {
    /// `schema` and `columns` are those of the batches.
    pub(super) fn new(stream: Stream, kind: Option<Kind>, schema: SchemaRef, columns: Vec<Column>) -> EventGenerator {
        let channels = Channels::new(stream.parameters.seed);
        EventGenerator { stream, kind, schema, columns, channels, events: Vec::new() }
    }

    /// Collects the next events of the kind that is wanted.
    fn collect(&mut self, cursor: &mut Cursor, rows: usize) {
        self.events.clear();
        let mut left = NUMBERS_MAX;
        while self.events.len() < rows && left > 0 {
            let run = cursor.run();
            let run = run.start..run.end.min(run.start + left);
            if run.is_empty() {
                return;
            }
            let end = if self.parameters_in_order() {
                self.collect_in_order(run.clone(), rows)
            } else {
                self.collect_shuffled(run.clone(), rows)
            };
            left -= end - run.start;
            cursor.advance_to(end);
        }
    }

    fn parameters_in_order(&self) -> bool {
        self.stream.parameters.shuffle == 1
    }

    /// Events of a run until the batch is full; gives the first number that was not looked at.
    fn collect_in_order(&mut self, run: std::ops::Range<u64>, rows: usize) -> u64 {
        let mut event = self.stream.event(run.start);
        while event.number < run.end && self.events.len() < rows {
            if self.kind.is_none_or(|kind| kind == self.stream.kind(event)) {
                self.events.push(event);
            }
            event = self.stream.following(event);
        }
        event.number
    }

    fn collect_shuffled(&mut self, run: std::ops::Range<u64>, rows: usize) -> u64 {
        for number in run.clone() {
            if self.events.len() == rows {
                return number;
            }
            let event = self.stream.event(number);
            if self.kind.is_none_or(|kind| kind == self.stream.kind(event)) {
                self.events.push(event);
            }
        }
        run.end
    }

    fn column(&self, column: &Column, data_type: &DataType) -> ArrayRef {
        match column {
            Column::EventType => {
                let code = |event: &Event| self.stream.kind(*event) as i32;
                Arc::new(self.events.iter().map(code).collect::<Int32Array>())
            }
            Column::Flat(field) => self.field(*field, data_type, &Rows { events: &self.events, present: None }),
            Column::Row { kind, fields, parts } => {
                let present: Vec<bool> = self.events.iter().map(|e| self.stream.kind(*e) == *kind).collect();
                let rows = Rows { events: &self.events, present: Some(&present) };
                let nulls = NullBuffer::from(present.clone());
                let array = |(part, field): (&Field, &FieldRef)| {
                    let array = self.field(*part, field.data_type(), &rows);
                    // A field of a NULL row is NULL, also for those who take the field without the row.
                    if field.is_nullable() { with_nulls(&array, &nulls) } else { array }
                };
                let arrays = parts.iter().zip(fields).map(array).collect();
                let row = StructArray::try_new_with_length(fields.clone(), arrays, Some(nulls), present.len());
                Arc::new(row.expect("the declared fields were matched with these columns"))
            }
        }
    }

    fn field(&self, field: Field, data_type: &DataType, rows: &Rows<'_>) -> ArrayRef {
        let s = &self.stream;
        match field {
            Field::DateTime => rows.times(data_type, |e| s.time_ms(e)),
            Field::PersonId => rows.numbers(|e| s.person_id(e)),
            Field::PersonName => rows.texts(16, |e, out| text::write_person_name(s, e, out)),
            Field::PersonEmail => rows.texts(16, |e, out| text::write_email(s, e, out)),
            Field::PersonCreditCard => rows.texts(19, |e, out| text::write_credit_card(s, e, out)),
            Field::PersonCity => rows.texts(13, |e, out| text::write_city(s, e, out)),
            Field::PersonState => rows.texts(2, |e, out| text::write_state(s, e, out)),
            Field::PersonExtra => rows.texts(s.parameters.person_size, |e, out| text::write_person_extra(s, e, out)),
            Field::AuctionId => rows.numbers(|e| s.auction_id(e)),
            Field::AuctionItemName => rows.texts(20, |e, out| text::write_item_name(s, e, out)),
            Field::AuctionDescription => rows.texts(60, |e, out| text::write_description(s, e, out)),
            Field::AuctionInitialBid => rows.numbers(|e| s.auction_initial_bid(e)),
            Field::AuctionReserve => rows.numbers(|e| s.auction_reserve(e)),
            Field::AuctionExpires => rows.times(data_type, |e| s.auction_expires_ms(e)),
            Field::AuctionSeller => rows.numbers(|e| s.auction_seller(e)),
            Field::AuctionCategory => rows.numbers(|e| s.auction_category(e)),
            Field::AuctionExtra => rows.texts(s.parameters.auction_size, |e, out| text::write_auction_extra(s, e, out)),
            Field::BidAuction => rows.numbers(|e| s.bid_auction(e)),
            Field::BidBidder => rows.numbers(|e| s.bid_bidder(e)),
            Field::BidPrice => rows.numbers(|e| s.bid_price(e)),
            Field::BidChannel => rows.texts(13, |e, out| self.channels.write_name(s, e, out)),
            Field::BidUrl => rows.texts(82, |e, out| self.channels.write_url(s, e, out)),
            Field::BidExtra => rows.texts(s.parameters.bid_size, |e, out| text::write_bid_extra(s, e, out)),
        }
    }
}

impl RowGenerator for EventGenerator {
    fn generate(&mut self, cursor: &mut Cursor, rows: usize) -> Result<RecordBatch, ConnectorError> {
        self.collect(cursor, rows);
        let columns =
            self.columns.iter().zip(self.schema.fields()).map(|(column, field)| self.column(column, field.data_type()));
        let options = RecordBatchOptions::new().with_row_count(Some(self.events.len()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns.collect(), &options);
        Ok(batch.expect("columns are made to the schema"))
    }
}

fn with_nulls(array: &ArrayRef, nulls: &NullBuffer) -> ArrayRef {
    let data = array.to_data().into_builder().nulls(Some(nulls.clone())).build();
    make_array(data.expect("there is a bit for each value"))
}

/// The events of a batch; where `present` is given, the others get a zero or an empty text.
struct Rows<'a> {
    events: &'a [Event],
    present: Option<&'a [bool]>,
}

impl Rows<'_> {
    fn values(&self, value: impl Fn(Event) -> i64) -> Vec<i64> {
        match self.present {
            None => self.events.iter().map(|e| value(*e)).collect(),
            Some(present) => self.events.iter().zip(present).map(|(e, p)| if *p { value(*e) } else { 0 }).collect(),
        }
    }

    fn numbers(&self, value: impl Fn(Event) -> i64) -> ArrayRef {
        Arc::new(Int64Array::from(self.values(value)))
    }

    fn times(&self, data_type: &DataType, ms: impl Fn(Event) -> i64) -> ArrayRef {
        let DataType::Timestamp(unit, zone) = data_type else {
            unreachable!("the declared type was checked to be a timestamp")
        };
        let zone = zone.clone();
        match unit {
            TimeUnit::Second => {
                Arc::new(TimestampSecondArray::from(self.values(|e| ms(e).div_euclid(1000))).with_timezone_opt(zone))
            }
            TimeUnit::Millisecond => Arc::new(TimestampMillisecondArray::from(self.values(ms)).with_timezone_opt(zone)),
            TimeUnit::Microsecond => Arc::new(
                TimestampMicrosecondArray::from(self.values(|e| ms(e).saturating_mul(1000))).with_timezone_opt(zone),
            ),
            TimeUnit::Nanosecond => Arc::new(
                TimestampNanosecondArray::from(self.values(|e| ms(e).saturating_mul(1_000_000)))
                    .with_timezone_opt(zone),
            ),
        }
    }

    /// `bytes` is about how long a text is.
    fn texts(&self, bytes: u64, write: impl Fn(Event, &mut Vec<u8>)) -> ArrayRef {
        let mut values = Vec::with_capacity(self.events.len() * bytes as usize + 64);
        let mut offsets = Vec::with_capacity(self.events.len() + 1);
        offsets.push(0);
        let mut end_text =
            |values: &Vec<u8>| offsets.push(i32::try_from(values.len()).expect("batches are limited in bytes"));
        match self.present {
            None => {
                for event in self.events {
                    write(*event, &mut values);
                    end_text(&values);
                }
            }
            Some(present) => {
                for (event, present) in self.events.iter().zip(present) {
                    if *present {
                        write(*event, &mut values);
                    }
                    end_text(&values);
                }
            }
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let array = StringArray::try_new(offsets, values.into(), None).expect("generated text is ASCII");
        debug_assert_eq!(array.len(), self.events.len());
        Arc::new(array)
    }
}
