//! Java's date patterns (`yyyy-MM-dd HH:mm:ss.SSS`), for writing and for reading times. Letters that Java
//! knows and this does not are refused, never ignored.

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// A pattern, taken apart.
pub(crate) struct Pattern {
    items: Vec<Item>,
}

#[derive(Debug, PartialEq)]
enum Item {
    Text(String),
    Field(char, usize),
}

impl Pattern {
    /// Takes a pattern apart, or says what is wrong with it.
    pub(crate) fn parse(pattern: &str) -> Result<Pattern, String> {
        let mut items = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            if c == '\'' {
                items.push(Item::Text(
                    quoted(&mut chars)
                        .ok_or_else(|| format!("the date pattern \"{pattern}\" has a quote that does not end"))?,
                ));
            } else if c.is_ascii_alphabetic() {
                if !"yuMLdDHhKkmsSaEzZXx".contains(c) {
                    return Err(format!("the letter '{c}' of the date pattern '{pattern}' is not supported"));
                }
                let mut width = 1;
                while chars.next_if_eq(&c).is_some() {
                    width += 1;
                }
                items.push(Item::Field(c, width));
            } else {
                items.push(Item::Text(c.to_string()));
            }
        }
        Ok(Pattern { items })
    }

    /// The time as text. Its zone is UTC.
    pub(crate) fn format(&self, time: NaiveDateTime) -> String {
        let mut out = String::new();
        for item in &self.items {
            match item {
                Item::Text(text) => out.push_str(text),
                Item::Field(letter, width) => write_field(&mut out, *letter, *width, time),
            }
        }
        out
    }

    /// The time that a text tells, in UTC; parts that the pattern does not name are those of
    /// 1970-01-01 00:00:00. None where the text does not fit.
    pub(crate) fn read(&self, text: &str) -> Option<NaiveDateTime> {
        let mut fields = Fields::default();
        let mut rest = text;
        for (position, item) in self.items.iter().enumerate() {
            let adjacent =
                matches!(self.items.get(position + 1), Some(Item::Field(letter, width)) if is_number(*letter, *width));
            rest = match item {
                Item::Text(text) => rest.strip_prefix(text.as_str())?,
                Item::Field(letter, width) => fields.take(*letter, *width, adjacent, rest)?,
            };
        }
        if rest.is_empty() { fields.time() } else { None }
    }
}

/// The text up to the closing quote; a doubled quote is one quote.
fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    if chars.next_if_eq(&'\'').is_some() {
        return Some("'".to_owned());
    }
    let mut text = String::new();
    loop {
        match chars.next()? {
            '\'' if chars.next_if_eq(&'\'').is_some() => text.push('\''),
            '\'' => return Some(text),
            c => text.push(c),
        }
    }
}

fn is_number(letter: char, width: usize) -> bool {
    match letter {
        'M' | 'L' => width <= 2,
        letter => "yudDHhKkmsS".contains(letter),
    }
}

fn write_field(out: &mut String, letter: char, width: usize, time: NaiveDateTime) {
    let hour = time.hour();
    let number = match letter {
        'y' | 'u' if width == 2 => time.year().rem_euclid(100).unsigned_abs(),
        'y' | 'u' => {
            let sign = if time.year() < 0 { "-" } else { "" };
            return out.push_str(&format!("{sign}{:0width$}", time.year().unsigned_abs()));
        }
        'M' | 'L' if width >= 3 => return out.push_str(name(&MONTHS, time.month0(), width)),
        'M' | 'L' => time.month(),
        'E' => return out.push_str(name(&DAYS, time.weekday().num_days_from_monday(), width)),
        'a' => return out.push_str(if hour < 12 { "AM" } else { "PM" }),
        'd' => time.day(),
        'D' => time.ordinal(),
        'H' => hour,
        'k' => {
            if hour == 0 {
                24
            } else {
                hour
            }
        }
        'K' => hour % 12,
        'h' => (hour + 11) % 12 + 1,
        'm' => time.minute(),
        's' => time.second(),
        'S' => {
            let digits = format!("{:09}", time.nanosecond().min(999_999_999));
            return out.extend(digits.chars().chain(std::iter::repeat('0')).take(width));
        }
        'Z' | 'x' => return out.push_str(if width == 3 { "+00:00" } else { "+0000" }),
        'X' => return out.push('Z'),
        // `z`: the only letter left of those that `parse` lets through.
        _ => return out.push_str("UTC"),
    };
    out.push_str(&format!("{number:0width$}"));
}

fn name<'a>(names: &[&'a str], index: u32, width: usize) -> &'a str {
    let name = names[index as usize];
    if width == 3 || (width < 3 && names.len() == 7) { &name[..3] } else { name }
}

/// What has been read so far.
struct Fields {
    year: i32,
    month: u32,
    day: u32,
    day_of_year: Option<u32>,
    hour: u32,
    half: Option<u32>,
    minute: u32,
    second: u32,
    nanosecond: u32,
    offset_seconds: i64,
}

impl Default for Fields {
    fn default() -> Self {
        Fields {
            year: 1970,
            month: 1,
            day: 1,
            day_of_year: None,
            hour: 0,
            half: None,
            minute: 0,
            second: 0,
            nanosecond: 0,
            offset_seconds: 0,
        }
    }
}

impl Fields {
    /// Reads one field and gives the text after it.
    fn take<'a>(&mut self, letter: char, width: usize, adjacent: bool, text: &'a str) -> Option<&'a str> {
        if !is_number(letter, width) {
            return self.take_word(letter, text);
        }
        let longest = match letter {
            _ if adjacent => width,
            'y' | 'u' if width != 2 => 9,
            'D' => 3,
            'S' => width,
            _ => 2,
        };
        let digits = text.bytes().take(longest).take_while(u8::is_ascii_digit).count();
        if digits == 0 || (adjacent && digits < width) {
            return None;
        }
        let (number, rest) = text.split_at(digits);
        let value: u32 = number.parse().ok()?;
        match letter {
            'y' | 'u' if width == 2 && digits == 2 => self.year = 2000 + i32::try_from(value).ok()?,
            'y' | 'u' => self.year = i32::try_from(value).ok()?,
            'M' | 'L' => self.month = value,
            'd' => self.day = value,
            'D' => self.day_of_year = Some(value),
            'H' if value < 24 => self.hour = value,
            'k' if (1..=24).contains(&value) => self.hour = value % 24,
            'K' if value < 12 => self.hour = value,
            'h' if (1..=12).contains(&value) => self.hour = value % 12,
            'm' => self.minute = value,
            's' => self.second = value,
            'S' => self.nanosecond = format!("{number:0<9}").get(..9)?.parse().ok()?,
            _ => return None,
        }
        Some(rest)
    }

    fn take_word<'a>(&mut self, letter: char, text: &'a str) -> Option<&'a str> {
        let after =
            |word: &str| text.get(..word.len()).filter(|t| t.eq_ignore_ascii_case(word)).map(|t| &text[t.len()..]);
        // The full name first: its beginning is the short one.
        let named = |names: &[&str]| {
            let full = names.iter().enumerate().find_map(|(i, n)| Some((i, after(n)?)));
            full.or_else(|| names.iter().enumerate().find_map(|(i, n)| Some((i, after(&n[..3])?))))
        };
        match letter {
            'M' | 'L' => {
                let (index, rest) = named(&MONTHS)?;
                self.month = u32::try_from(index).ok()? + 1;
                Some(rest)
            }
            'E' => named(&DAYS).map(|(_, rest)| rest),
            'a' => {
                let (half, rest) = after("AM").map(|r| (0, r)).or_else(|| after("PM").map(|r| (12, r)))?;
                self.half = Some(half);
                Some(rest)
            }
            _ => self.take_offset(text),
        }
    }

    fn take_offset<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        if let Some(rest) =
            text.strip_prefix("UTC").or_else(|| text.strip_prefix("GMT")).or_else(|| text.strip_prefix('Z'))
        {
            return Some(rest);
        }
        let sign = if text.starts_with('-') { -1 } else { 1 };
        let rest = text.strip_prefix(['+', '-'])?;
        let two = |t: &'a str| Some((t.get(..2)?.parse::<u32>().ok()?, t.get(2..)?));
        let (hours, rest) = two(rest)?;
        let (minutes, rest) = two(rest.strip_prefix(':').unwrap_or(rest)).unwrap_or((0, rest));
        self.offset_seconds = sign * (i64::from(hours) * 3600 + i64::from(minutes) * 60);
        Some(rest)
    }

    fn time(&self) -> Option<NaiveDateTime> {
        let date = match self.day_of_year {
            Some(day) => NaiveDate::from_yo_opt(self.year, day)?,
            None => NaiveDate::from_ymd_opt(self.year, self.month, self.day)?,
        };
        let hour = self.half.map_or(self.hour, |half| self.hour % 12 + half);
        let time = NaiveTime::from_hms_nano_opt(hour, self.minute, self.second, self.nanosecond)?;
        date.and_time(time).checked_sub_signed(chrono::TimeDelta::try_seconds(self.offset_seconds)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> NaiveDateTime {
        text.parse().unwrap()
    }

    #[test]
    fn writes_what_java_writes() {
        let at = time("2024-03-05T15:04:09.123456");
        let check =
            |pattern: &str, text: &str| assert_eq!(Pattern::parse(pattern).unwrap().format(at), text, "{pattern}");
        check("yyyy-MM-dd HH:mm:ss.SSS", "2024-03-05 15:04:09.123");
        check("yyyyMMdd", "20240305");
        check("d/M/yy h:mm a", "5/3/24 3:04 PM");
        check("EEE, d MMM yyyy", "Tue, 5 Mar 2024");
        check("EEEE MMMM D", "Tuesday March 65");
        check("yyyy-MM-dd'T'HH:mm:ss''XXX", "2024-03-05T15:04:09'Z");
        check("HH:mm:ss.SSSSSSSSS", "15:04:09.123456000");
    }

    #[test]
    fn reads_what_it_writes_and_refuses_the_rest() {
        let read = |pattern: &str, text: &str| Pattern::parse(pattern).unwrap().read(text);
        assert_eq!(read("yyyy-MM-dd HH:mm:ss", "2024-03-05 15:04:09"), Some(time("2024-03-05T15:04:09")));
        assert_eq!(read("yyyyMMddHHmmssSSS", "20240305150409123"), Some(time("2024-03-05T15:04:09.123")));
        assert_eq!(read("dd/MMM/yyyy:HH:mm:ss Z", "05/Mar/2024:15:04:09 +0200"), Some(time("2024-03-05T13:04:09")));
        assert_eq!(read("h:mm a", "12:30 am"), Some(time("1970-01-01T00:30:00")));
        assert_eq!(read("yyyy-MM-dd", "2024-02-30"), None);
        assert_eq!(read("yyyy-MM-dd", "2024-02-03 "), None);
        assert_eq!(read("yyyy-MM-dd", ""), None);
        assert_eq!(read("MMM", "Mä"), None);
        assert!(Pattern::parse("yyyy-ww").is_err() && Pattern::parse("yyyy'T").is_err());
    }
}
