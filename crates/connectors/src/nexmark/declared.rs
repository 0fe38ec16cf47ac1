//! Matches the columns that a user declared for a `nexmark` table with the fields of the events. Called by
//! `nexmark::source`.

use arrow::datatypes::{DataType, Field as ArrowField, Fields};

use crate::error::ConnectorError;
use crate::table::TableSpec;

use super::stream::Kind;

/// A field of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    PersonId,
    PersonName,
    PersonEmail,
    PersonCreditCard,
    PersonCity,
    PersonState,
    PersonExtra,
    AuctionId,
    AuctionItemName,
    AuctionDescription,
    AuctionInitialBid,
    AuctionReserve,
    AuctionExpires,
    AuctionSeller,
    AuctionCategory,
    AuctionExtra,
    BidAuction,
    BidBidder,
    BidPrice,
    BidChannel,
    BidUrl,
    BidExtra,
    /// Event time; the same for all kinds.
    DateTime,
}

/// What type a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Number,
    Text,
    Time,
}

impl Type {
    fn sql(self) -> &'static str {
        match self {
            Type::Number => "BIGINT",
            Type::Text => "STRING",
            Type::Time => "TIMESTAMP(3)",
        }
    }

    fn fits(self, data_type: &DataType) -> bool {
        match self {
            Type::Number => *data_type == DataType::Int64,
            Type::Text => *data_type == DataType::Utf8,
            Type::Time => matches!(data_type, DataType::Timestamp(_, _)),
        }
    }
}

const PERSON: &[(&str, Type, Field)] = &[
    ("id", Type::Number, Field::PersonId),
    ("name", Type::Text, Field::PersonName),
    ("emailAddress", Type::Text, Field::PersonEmail),
    ("creditCard", Type::Text, Field::PersonCreditCard),
    ("city", Type::Text, Field::PersonCity),
    ("state", Type::Text, Field::PersonState),
    ("dateTime", Type::Time, Field::DateTime),
    ("extra", Type::Text, Field::PersonExtra),
];

const AUCTION: &[(&str, Type, Field)] = &[
    ("id", Type::Number, Field::AuctionId),
    ("itemName", Type::Text, Field::AuctionItemName),
    ("description", Type::Text, Field::AuctionDescription),
    ("initialBid", Type::Number, Field::AuctionInitialBid),
    ("reserve", Type::Number, Field::AuctionReserve),
    ("dateTime", Type::Time, Field::DateTime),
    ("expires", Type::Time, Field::AuctionExpires),
    ("seller", Type::Number, Field::AuctionSeller),
    ("category", Type::Number, Field::AuctionCategory),
    ("extra", Type::Text, Field::AuctionExtra),
];

const BID: &[(&str, Type, Field)] = &[
    ("auction", Type::Number, Field::BidAuction),
    ("bidder", Type::Number, Field::BidBidder),
    ("price", Type::Number, Field::BidPrice),
    ("channel", Type::Text, Field::BidChannel),
    ("url", Type::Text, Field::BidUrl),
    ("dateTime", Type::Time, Field::DateTime),
    ("extra", Type::Text, Field::BidExtra),
];

fn fields_of(kind: Kind) -> &'static [(&'static str, Type, Field)] {
    match kind {
        Kind::Person => PERSON,
        Kind::Auction => AUCTION,
        Kind::Bid => BID,
    }
}

/// What a column of the table holds.
#[derive(Clone, Debug)]
pub(super) enum Column {
    /// 0 for a person, 1 for an auction, 2 for a bid.
    EventType,
    /// The event, if it is of that kind, else null.
    Row { kind: Kind, fields: Fields, parts: Vec<Field> },
    /// One field.
    Flat(Field),
}

/// What each column of the table holds. With a kind the columns are its fields, otherwise `event_type` and
/// one row for each kind.
pub(super) fn columns(table: &TableSpec, kind: Option<Kind>) -> Result<Vec<Column>, ConnectorError> {
    let column = |column: &ArrowField| match kind {
        Some(kind) => field(table, kind, column, "").map(Column::Flat),
        None => row_column(table, column),
    };
    table.schema.fields().iter().map(|f| column(f)).collect()
}

fn row_column(table: &TableSpec, column: &ArrowField) -> Result<Column, ConnectorError> {
    let kind = match column.name().as_str() {
        "event_type" if *column.data_type() == DataType::Int32 => return Ok(Column::EventType),
        "person" => Kind::Person,
        "auction" => Kind::Auction,
        "bid" => Kind::Bid,
        _ => return Err(wrong(table, column.name(), &row_form())),
    };
    let DataType::Struct(fields) = column.data_type() else { return Err(wrong(table, column.name(), &row_form())) };
    if !column.is_nullable() {
        let name = &table.name;
        return Err(ConnectorError::option(format!(
            "column '{}' of table '{name}' is null for events of other kinds; declare it without NOT NULL",
            column.name()
        )));
    }
    let part = |f: &ArrowField| field(table, kind, f, &format!("{}.", column.name()));
    let parts = fields.iter().map(|f| part(f)).collect::<Result<Vec<_>, _>>()?;
    Ok(Column::Row { kind, fields: fields.clone(), parts })
}

fn field(table: &TableSpec, kind: Kind, column: &ArrowField, parent: &str) -> Result<Field, ConnectorError> {
    let legal = fields_of(kind);
    let known = legal.iter().find(|(name, ty, _)| name == column.name() && ty.fits(column.data_type()));
    known.map(|(_, _, field)| *field).ok_or_else(|| {
        let hint = if parent.is_empty() { "" } else { "; for flat columns set the option 'table'" };
        wrong(table, &format!("{parent}{}", column.name()), &format!("{}{hint}", list(kind)))
    })
}

fn list(kind: Kind) -> String {
    let columns: Vec<_> = fields_of(kind).iter().map(|(name, ty, _)| format!("{name} {}", ty.sql())).collect();
    columns.join(", ")
}

fn row_form() -> String {
    let row = |kind: Kind| format!("{} ROW<{}>", kind.name(), list(kind));
    format!(
        "event_type INT, {}, {}, {}; or, with the option 'table' set to person, auction or bid, the columns of that row",
        row(Kind::Person),
        row(Kind::Auction),
        row(Kind::Bid)
    )
}

fn wrong(table: &TableSpec, column: &str, legal: &str) -> ConnectorError {
    ConnectorError::option(format!(
        "column '{column}' of table '{}' is no column of the connector 'nexmark', or has another type there; legal are: {legal}",
        table.name
    ))
}
