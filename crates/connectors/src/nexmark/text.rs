//! The text fields of Nexmark events, written straight into the byte buffer of a column. Called by the columns.
//! All text is ASCII.

use crate::generator::{Random, below, derive, letters};

use super::stream::{Event, Stream};

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
/// Channels besides the hot ones.
const CHANNELS: u64 = 10_000;
/// One bid in so many comes through a channel that is not hot.
const HOT_CHANNEL_RATIO: u64 = 2;
/// Longest name and description of an item, exclusive.
const ITEM_NAME_LENGTH: u64 = 20;
const DESCRIPTION_LENGTH: u64 = 100;
const TEXT_LENGTH_MIN: u64 = 3;
const CREDIT_CARD_LENGTH: u64 = 19;
/// Bytes that the number fields count for in the size of an event.
const PERSON_NUMBERS: u64 = 8;
const AUCTION_NUMBERS: u64 = 48;
const BID_NUMBERS: u64 = 32;

/// Channels and their URLs, made once a reader: what 10,000 advertisers would have.
#[derive(Clone, Debug)]
pub(super) struct Channels {
    names: Words,
    urls: Words,
}

impl Channels {
    pub(super) fn new(seed: u64) -> Channels {
        let random = Random::new(seed, 100);
        let (mut names, mut urls) = (Words::default(), Words::default());
        for channel in 0..CHANNELS + HOT_CHANNELS.len() as u64 {
            let hot = channel.checked_sub(CHANNELS);
            match hot {
                Some(hot) => names.bytes.extend_from_slice(HOT_CHANNELS[hot as usize].as_bytes()),
                None => names.bytes.extend_from_slice(format!("channel-{channel}").as_bytes()),
            }
            names.end_word();
            urls.bytes.extend_from_slice(b"https://www.nexmark.com/");
            let number = random.at(channel);
            for part in 1..=3 {
                urls.bytes.extend_from_slice(&letters(derive(number, part))[..5]);
                urls.bytes.push(b'/');
            }
            urls.bytes.extend_from_slice(b"item.htm?query=1");
            if hot.is_none() && below(derive(number, 4), 10) > 0 {
                let id = derive(number, 5) >> 33;
                urls.bytes.extend_from_slice(format!("&channel_id={id}").as_bytes());
            }
            urls.end_word();
        }
        Channels { names, urls }
    }

    #[inline]
    pub(super) fn write_name(&self, stream: &Stream, event: Event, out: &mut Vec<u8>) {
        out.extend_from_slice(self.names.word(channel(stream, event)));
    }

    #[inline]
    pub(super) fn write_url(&self, stream: &Stream, event: Event, out: &mut Vec<u8>) {
        out.extend_from_slice(self.urls.word(channel(stream, event)));
    }
}

/// The channel that a bid came through.
#[inline]
fn channel(stream: &Stream, event: Event) -> usize {
    let random = stream.randoms.channel.at(event.number);
    let choice = derive(random, 1);
    let index = if below(random, HOT_CHANNEL_RATIO) > 0 {
        CHANNELS + below(choice, HOT_CHANNELS.len() as u64)
    } else {
        below(choice, CHANNELS)
    };
    index as usize
}

/// Words one after the other in one buffer.
#[derive(Clone, Debug, Default)]
struct Words {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Words {
    fn end_word(&mut self) {
        self.ends.push(self.bytes.len());
    }

    #[inline]
    fn word(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }
}

pub(super) fn write_person_name(stream: &Stream, event: Event, out: &mut Vec<u8>) {
    let (first, last) = person_name(stream, event);
    out.extend_from_slice(first.as_bytes());
    out.push(b' ');
    out.extend_from_slice(last.as_bytes());
}

pub(super) fn write_email(stream: &Stream, event: Event, out: &mut Vec<u8>) {
    let random = stream.randoms.email.at(event.number);
    let (name, host) = email_lengths(random);
    out.extend_from_slice(&letters(derive(random, 3))[..name]);
    out.push(b'@');
    out.extend_from_slice(&letters(derive(random, 4))[..host]);
    out.extend_from_slice(b".com");
}

pub(super) fn write_credit_card(stream: &Stream, event: Event, out: &mut Vec<u8>) {
    let random = stream.randoms.credit_card.at(event.number);
    for part in 0..4 {
        if part > 0 {
            out.push(b' ');
        }
        let digits = below(derive(random, part), 10_000);
        out.extend([1000, 100, 10, 1].map(|unit| b'0' + (digits / unit % 10) as u8));
    }
}

pub(super) fn write_city(stream: &Stream, event: Event, out: &mut Vec<u8>) {
    out.extend_from_slice(city(stream, event).as_bytes());
}

pub(super) fn write_state(stream: &Stream, event: Event, out: &mut Vec<u8>) {
    out.extend_from_slice(pick(&STATES, stream.randoms.state.at(event.number)).as_bytes());
}

pub(super) fn write_item_name(stream: &Stream, event: Event, out: &mut Vec<u8>) {
    let random = stream.randoms.item_name.at(event.number);
    write_words(random, text_length(random, ITEM_NAME_LENGTH), out);
}

pub(super) fn write_description(stream: &Stream, event: Event, out: &mut Vec<u8>) {
    let random = stream.randoms.description.at(event.number);
    write_words(random, text_length(random, DESCRIPTION_LENGTH), out);
}

/// Fills a person up to the average size.
pub(super) fn write_person_extra(stream: &Stream, event: Event, out: &mut Vec<u8>) {
    let (first, last) = person_name(stream, event);
    let (name, host) = email_lengths(stream.randoms.email.at(event.number));
    let texts = first.len() + 1 + last.len() + name + 1 + host + 4 + city(stream, event).len() + 2;
    let size = PERSON_NUMBERS + CREDIT_CARD_LENGTH + texts as u64;
    write_extra(stream, event, size, stream.parameters.person_size, out);
}

/// Fills an auction up to the average size.
pub(super) fn write_auction_extra(stream: &Stream, event: Event, out: &mut Vec<u8>) {
    let name = text_length(stream.randoms.item_name.at(event.number), ITEM_NAME_LENGTH);
    let description = text_length(stream.randoms.description.at(event.number), DESCRIPTION_LENGTH);
    write_extra(stream, event, AUCTION_NUMBERS + name + description, stream.parameters.auction_size, out);
}

/// Fills a bid up to the average size; as in the public generator, channel and URL do not count.
#[inline]
pub(super) fn write_bid_extra(stream: &Stream, event: Event, out: &mut Vec<u8>) {
    write_extra(stream, event, BID_NUMBERS, stream.parameters.bid_size, out);
}

/// Letters such that the event has its average size, give or take a fifth of what is missing.
#[inline]
fn write_extra(stream: &Stream, event: Event, size: u64, average: u64, out: &mut Vec<u8>) {
    let random = stream.randoms.extra.at(event.number);
    let missing = average.saturating_sub(size);
    let spread = (missing + 2) / 5;
    let length = (missing - spread + below(random, 2 * spread)) as usize;
    let end = out.len() + length;
    for word in 0..length.div_ceil(8) as u64 {
        out.extend_from_slice(&letters(derive(random, word + 1)));
    }
    out.truncate(end);
}

/// Letters with a space here and there, never at the ends.
fn write_words(random: u64, length: u64, out: &mut Vec<u8>) {
    let start = out.len();
    for word in 0..length.div_ceil(8) {
        let mut text = letters(derive(random, 2 * word + 1));
        let spaces = derive(random, 2 * word + 2).to_le_bytes();
        for (letter, space) in text.iter_mut().zip(spaces) {
            // One in thirteen.
            if space < 20 {
                *letter = b' ';
            }
        }
        out.extend_from_slice(&text);
    }
    let end = start + length as usize;
    out.truncate(end);
    for at in [start, end - 1] {
        if out[at] == b' ' {
            out[at] = b'x';
        }
    }
}

fn text_length(random: u64, limit: u64) -> u64 {
    TEXT_LENGTH_MIN + below(derive(random, 1 << 32), limit - TEXT_LENGTH_MIN)
}

fn person_name(stream: &Stream, event: Event) -> (&'static str, &'static str) {
    let first = pick(&FIRST_NAMES, stream.randoms.first_name.at(event.number));
    (first, pick(&LAST_NAMES, stream.randoms.last_name.at(event.number)))
}

fn city(stream: &Stream, event: Event) -> &'static str {
    pick(&CITIES, stream.randoms.city.at(event.number))
}

/// Letters before the `@`, and between it and `.com`.
fn email_lengths(random: u64) -> (usize, usize) {
    ((3 + below(derive(random, 1), 4)) as usize, (3 + below(derive(random, 2), 2)) as usize)
}

fn pick(words: &[&'static str], random: u64) -> &'static str {
    words[below(random, words.len() as u64) as usize]
}
