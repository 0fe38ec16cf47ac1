//! The Nexmark stream as pure functions: what event n is, when it happens, and each of its numbers. Called by
//! the columns. Behaviour after the public generator: people, auctions and bids come in fixed proportions; bids
//! and auctions prefer a few hot sellers, bidders and auctions; ids run a little ahead of what exists.
//!
//! A change to any function here changes the rows of jobs that are running: it needs a new seed default.

use crate::generator::{Random, below, derive, event_time_ms, unit};

/// Ids begin here, so that small streams find matches.
const FIRST_PERSON: u64 = 1000;
const FIRST_AUCTION: u64 = 1000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// One person (auction) in so many is hot.
const HOT_SPACING: u64 = 100;
/// Ids that may be named before they exist.
const ID_LEAD: u64 = 10;
/// The multiplier that mixes the order of events within a group.
const SHUFFLE_FACTOR: u64 = 953;
/// Cells of the table of prices, as a power of two.
const PRICE_CELLS_LOG2: u32 = 12;

/// The kinds of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Person,
    Auction,
    Bid,
}

impl Kind {
    /// The name in options and columns.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Person => "person",
            Kind::Auction => "auction",
            Kind::Bid => "bid",
        }
    }
}

/// The knobs of a stream; shares are out of their sum, ratios are 1 in so many that is not hot.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    pub(super) seed: u64,
    pub(super) base_time_ms: i64,
    pub(super) events_per_second: u64,
    pub(super) people: u64,
    pub(super) auctions: u64,
    pub(super) bids: u64,
    pub(super) hot_auctions: u64,
    pub(super) hot_bidders: u64,
    pub(super) hot_sellers: u64,
    pub(super) active_people: u64,
    pub(super) auctions_in_flight: u64,
    /// Average sizes in bytes.
    pub(super) person_size: u64,
    pub(super) auction_size: u64,
    pub(super) bid_size: u64,
    /// Events within groups of so many come in another order; 1: in order.
    pub(super) shuffle: u64,
}

/// An event: its number, and where it stands in the pattern of people, auctions and bids that repeats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) number: u64,
    /// How often the pattern has been gone through before.
    pub(super) round: u64,
    /// Place in the pattern.
    pub(super) place: u64,
}

/// Sources of randomness; one for each use, so that each column can be made without the others.
#[derive(Clone, Debug)]
pub(super) struct Randoms {
    hot_auction: Random,
    any_auction: Random,
    hot_bidder: Random,
    any_bidder: Random,
    price: Random,
    hot_seller: Random,
    any_seller: Random,
    initial_bid: Random,
    reserve: Random,
    length: Random,
    category: Random,
    pub(super) channel: Random,
    pub(super) first_name: Random,
    pub(super) last_name: Random,
    pub(super) email: Random,
    pub(super) credit_card: Random,
    pub(super) city: Random,
    pub(super) state: Random,
    pub(super) item_name: Random,
    pub(super) description: Random,
    pub(super) extra: Random,
}

impl Randoms {
    fn new(seed: u64) -> Randoms {
        Randoms {
            hot_auction: Random::new(seed, 0),
            any_auction: Random::new(seed, 1),
            hot_bidder: Random::new(seed, 2),
            any_bidder: Random::new(seed, 3),
            price: Random::new(seed, 4),
            hot_seller: Random::new(seed, 5),
            any_seller: Random::new(seed, 6),
            initial_bid: Random::new(seed, 7),
            reserve: Random::new(seed, 8),
            length: Random::new(seed, 9),
            category: Random::new(seed, 10),
            channel: Random::new(seed, 11),
            first_name: Random::new(seed, 12),
            last_name: Random::new(seed, 13),
            email: Random::new(seed, 14),
            credit_card: Random::new(seed, 15),
            city: Random::new(seed, 16),
            state: Random::new(seed, 17),
            item_name: Random::new(seed, 18),
            description: Random::new(seed, 19),
            extra: Random::new(seed, 20),
        }
    }
}

/// A stream of events.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) parameters: Parameters,
    pub(super) randoms: Randoms,
    /// Length of the pattern.
    pub(super) round_events: u64,
    prices: Vec<f64>,
}

impl Stream {
    pub(super) fn new(parameters: Parameters) -> Stream {
        // Powers by repeated multiplication: the same bits on every machine, which `powf` does not promise.
        let step = 1.003_378_622_102_704_8_f64; // 10^(6/4096)
        let cells = std::iter::successors(Some(1.0_f64), |p| Some(p * step)).take((1 << PRICE_CELLS_LOG2) + 1);
        let round_events = parameters.people + parameters.auctions + parameters.bids;
        Stream { randoms: Randoms::new(parameters.seed), round_events, prices: cells.collect(), parameters }
    }

    /// The event at a place of the stream: in order, or shuffled within its group.
    pub(super) fn event(&self, at: u64) -> Event {
        let group = self.parameters.shuffle;
        let number = if group == 1 { at } else { at / group * group + at.wrapping_mul(SHUFFLE_FACTOR) % group };
        Event { number, round: number / self.round_events, place: number % self.round_events }
    }

    /// The event after this one, where events come in order.
    #[inline]
    pub(super) fn following(&self, event: Event) -> Event {
        let last = event.place + 1 == self.round_events;
        Event {
            number: event.number + 1,
            round: event.round + u64::from(last),
            place: if last { 0 } else { event.place + 1 },
        }
    }

    #[inline]
    pub(super) fn kind(&self, event: Event) -> Kind {
        if event.place < self.parameters.people {
            Kind::Person
        } else if event.place < self.parameters.people + self.parameters.auctions {
            Kind::Auction
        } else {
            Kind::Bid
        }
    }

    /// An upper bound of the text in one row, in bytes.
    pub(super) fn row_bytes_max(&self) -> u64 {
        let sizes = self.parameters.person_size + self.parameters.auction_size + self.parameters.bid_size;
        sizes * 5 / 4 + 512
    }

    /// Event time in ms since 1970.
    #[inline]
    pub(super) fn time_ms(&self, event: Event) -> i64 {
        self.time_of_number_ms(event.number)
    }

    fn time_of_number_ms(&self, number: u64) -> i64 {
        event_time_ms(self.parameters.base_time_ms, number, self.parameters.events_per_second)
    }

    /// Id of the person that this event is, or of the newest person before it.
    #[inline]
    pub(super) fn person_id(&self, event: Event) -> i64 {
        (self.newest_person(event) + FIRST_PERSON) as i64
    }

    /// Id of the auction that this event is, or of the newest auction before it.
    #[inline]
    pub(super) fn auction_id(&self, event: Event) -> i64 {
        (self.newest_auction(event) + FIRST_AUCTION) as i64
    }

    fn newest_person(&self, event: Event) -> u64 {
        let people = self.parameters.people;
        // Without people in the stream all belongs to person 0.
        event.round * people + event.place.min(people.saturating_sub(1))
    }

    fn newest_auction(&self, event: Event) -> u64 {
        let Parameters { people, auctions, .. } = self.parameters;
        let made = event.round * auctions + (event.place + 1).saturating_sub(people).min(auctions);
        made.saturating_sub(1)
    }

    fn any_person(&self, event: Event, random: u64) -> u64 {
        let people = self.newest_person(event) + 1;
        let active = people.min(self.parameters.active_people);
        people - active + below(random, active + ID_LEAD)
    }

    /// The auction that a bid is for.
    #[inline]
    pub(super) fn bid_auction(&self, event: Event) -> i64 {
        let newest = self.newest_auction(event);
        let auction = if below(self.randoms.hot_auction.at(event.number), self.parameters.hot_auctions) > 0 {
            newest / HOT_SPACING * HOT_SPACING
        } else {
            let oldest = newest.saturating_sub(self.parameters.auctions_in_flight);
            oldest + below(self.randoms.any_auction.at(event.number), newest - oldest + 1 + ID_LEAD)
        };
        (auction + FIRST_AUCTION) as i64
    }

    /// Who bids.
    #[inline]
    pub(super) fn bid_bidder(&self, event: Event) -> i64 {
        let person = if below(self.randoms.hot_bidder.at(event.number), self.parameters.hot_bidders) > 0 {
            // The second of each hundred, so that hot bidders are not the hot sellers.
            self.newest_person(event) / HOT_SPACING * HOT_SPACING + 1
        } else {
            self.any_person(event, self.randoms.any_bidder.at(event.number))
        };
        (person + FIRST_PERSON) as i64
    }

    /// What is bid, in cents.
    #[inline]
    pub(super) fn bid_price(&self, event: Event) -> i64 {
        self.price(self.randoms.price.at(event.number))
    }

    /// Who sells.
    pub(super) fn auction_seller(&self, event: Event) -> i64 {
        let person = if below(self.randoms.hot_seller.at(event.number), self.parameters.hot_sellers) > 0 {
            self.newest_person(event) / HOT_SPACING * HOT_SPACING
        } else {
            self.any_person(event, self.randoms.any_seller.at(event.number))
        };
        (person + FIRST_PERSON) as i64
    }

    /// The first bid, in cents.
    pub(super) fn auction_initial_bid(&self, event: Event) -> i64 {
        self.price(self.randoms.initial_bid.at(event.number))
    }

    /// The least price at which the seller sells, in cents; never below the first bid.
    pub(super) fn auction_reserve(&self, event: Event) -> i64 {
        self.auction_initial_bid(event) + self.price(self.randoms.reserve.at(event.number))
    }

    /// When the auction ends, in ms since 1970: on average when all auctions in flight have been replaced.
    pub(super) fn auction_expires_ms(&self, event: Event) -> i64 {
        let Parameters { auctions, auctions_in_flight, .. } = self.parameters;
        let now = self.time_ms(event);
        let ahead = auctions_in_flight * self.round_events / auctions.max(1);
        let horizon = self.time_of_number_ms(event.number + ahead).saturating_sub(now).max(0) as u64;
        let length = 1 + below(self.randoms.length.at(event.number), (horizon * 2).max(1));
        now.saturating_add(length as i64)
    }

    /// The category of the item.
    pub(super) fn auction_category(&self, event: Event) -> i64 {
        (FIRST_CATEGORY + below(self.randoms.category.at(event.number), CATEGORIES)) as i64
    }

    /// A price in cents: 100 to 100,000,000, its logarithm evenly spread.
    #[inline]
    fn price(&self, random: u64) -> i64 {
        let cell = (random >> (64 - PRICE_CELLS_LOG2)) as usize;
        let within = unit(derive(random, 1));
        let dollars = self.prices[cell] + (self.prices[cell + 1] - self.prices[cell]) * within;
        (dollars * 100.0 + 0.5) as i64
    }
}
