//! The options of a `nexmark` table, with the names that Flink's Nexmark gives them. Called by `nexmark::source`.

use crate::error::ConnectorError;
use crate::generator::{Schedule, base_time_ms};
use crate::table::{Options, TableSpec};

use super::stream::{Kind, Parameters, Stream};

/// Proportions and ratios above this make no sensible stream.
const SHARE_MAX: u64 = 1_000_000;
/// Sizes above this (bytes of one event) are refused.
const SIZE_MAX: u64 = 64 << 10;
/// Events a second, at most.
const RATE_MAX: u64 = 1_000_000_000;
/// Seed of a stream whose user gives none.
const SEED_DEFAULT: u64 = 42;

/// What a `nexmark` table asks for.
#[derive(Clone, Debug)]
pub(super) struct NexmarkOptions {
    /// The only kind of event that is given, as flat columns (`'table'`); absent: all kinds, as rows.
    pub(super) kind: Option<Kind>,
    pub(super) stream: Stream,
    pub(super) schedule: Schedule,
}

impl NexmarkOptions {
    /// Reads and checks all options.
    pub(super) fn read(table: &TableSpec) -> Result<NexmarkOptions, ConnectorError> {
        let mut options = table.options();
        let kind = match options.one_of("table", "", &["person", "auction", "bid"])? {
            "person" => Some(Kind::Person),
            "auction" => Some(Kind::Auction),
            "bid" => Some(Kind::Bid),
            _ => None,
        };
        let parameters = parameters(&mut options)?;
        let events = options.parse::<u64>("events.num", 0)?;
        let paced = is_paced(&mut options)?;
        let pace = paced.then_some(parameters.events_per_second);
        let schedule = Schedule::new(&mut options, (events > 0).then_some(events), pace)?;
        options.finish()?;
        let share = |kind| match kind {
            Kind::Person => parameters.people,
            Kind::Auction => parameters.auctions,
            Kind::Bid => parameters.bids,
        };
        if let Some(kind) = kind.filter(|k| share(*k) == 0) {
            let name = kind.name();
            return Err(ConnectorError::option(format!(
                "table '{}' reads {name} events, but '{name}.proportion' is 0; raise it",
                table.name
            )));
        }
        Ok(NexmarkOptions { kind, stream: Stream::new(parameters), schedule })
    }
}

fn parameters(options: &mut Options<'_>) -> Result<Parameters, ConnectorError> {
    let base_time_ms = base_time_ms(options)?;
    let parameters = Parameters {
        seed: options.parse("seed", SEED_DEFAULT)?,
        base_time_ms,
        events_per_second: rate(options)?,
        people: within(options, "person.proportion", 1, 0, SHARE_MAX)?,
        auctions: within(options, "auction.proportion", 3, 0, SHARE_MAX)?,
        bids: within(options, "bid.proportion", 46, 0, SHARE_MAX)?,
        hot_auctions: within(options, "bid.hot-ratio.auctions", 2, 1, SHARE_MAX)?,
        hot_bidders: within(options, "bid.hot-ratio.bidders", 4, 1, SHARE_MAX)?,
        hot_sellers: within(options, "auction.hot-ratio.sellers", 4, 1, SHARE_MAX)?,
        active_people: within(options, "person.active", 1000, 1, SHARE_MAX)?,
        auctions_in_flight: within(options, "auction.in-flight", 100, 1, SHARE_MAX)?,
        person_size: size(options, "person.avg-size", 200)?,
        auction_size: size(options, "auction.avg-size", 500)?,
        bid_size: size(options, "bid.avg-size", 100)?,
        shuffle: within(options, "out-of-order-group-size", 1, 1, SHARE_MAX)?,
    };
    if parameters.people + parameters.auctions + parameters.bids == 0 {
        return Err(ConnectorError::option(
            "the options 'person.proportion', 'auction.proportion' and 'bid.proportion' are all 0; raise one",
        ));
    }
    Ok(parameters)
}

/// Events a second of event time. Flink knows a first and a next rate; the stream here has one.
fn rate(options: &mut Options<'_>) -> Result<u64, ConnectorError> {
    let first = options.parse_optional::<u64>("first-event.rate")?;
    let next = options.parse_optional::<u64>("next-event.rate")?;
    if let (Some(first), Some(next)) = (first, next)
        && first != next
    {
        return Err(ConnectorError::option(format!(
            "the options 'first-event.rate' = '{first}' and 'next-event.rate' = '{next}' differ; a rate that changes is not supported, make them equal"
        )));
    }
    let rate = first.or(next).unwrap_or(10_000);
    if rate == 0 || rate > RATE_MAX {
        return Err(ConnectorError::option(format!(
            "option 'first-event.rate' must be between 1 and {RATE_MAX} events a second, not {rate}"
        )));
    }
    Ok(rate)
}

/// `rate-limit`, or by Flink's name `rate.limited`.
fn is_paced(options: &mut Options<'_>) -> Result<bool, ConnectorError> {
    let ours = options.parse_optional::<bool>("rate-limit")?;
    let flink = options.parse_optional::<bool>("rate.limited")?;
    if let (Some(ours), Some(flink)) = (ours, flink)
        && ours != flink
    {
        return Err(ConnectorError::option(
            "the options 'rate-limit' and 'rate.limited' mean the same and differ; give one of them",
        ));
    }
    Ok(ours.or(flink).unwrap_or(false))
}

fn within(options: &mut Options<'_>, key: &str, default: u64, least: u64, most: u64) -> Result<u64, ConnectorError> {
    let value = options.parse(key, default)?;
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(ConnectorError::option(format!("option '{key}' must be between {least} and {most}, not {value}")))
}

fn size(options: &mut Options<'_>, key: &str, default: u64) -> Result<u64, ConnectorError> {
    let value = options.size(key)?.unwrap_or(default);
    if value <= SIZE_MAX {
        return Ok(value);
    }
    Err(ConnectorError::option(format!("option '{key}' must be at most {SIZE_MAX} bytes, not {value}")))
}
