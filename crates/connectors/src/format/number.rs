//! Numbers in text: scanned once into digits and exponent, then turned into whatever the column holds. Called
//! by the JSON scanner and by the columns; exact for integers and decimals, correctly rounded for floats.

/// A number as it was scanned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number<'a> {
    /// The whole text of it.
    pub(crate) text: &'a [u8],
    /// Whether it begins with a minus sign.
    negative: bool,
    /// Its digits without the point, where `exact`.
    digits: u64,
    /// The power of ten that the digits are to be multiplied with.
    exponent: i32,
    /// Whether `digits` holds all digits.
    exact: bool,
}

/// Why a number does not fit a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// It has a fraction, the column holds integers.
    NotWhole,
    /// It is too large for the column.
    OutOfRange,
}

/// Digits of 10^19 - 1, the largest count that a `u64` always holds.
const DIGITS_EXACT: usize = 19;
/// Exponents are cut off here; beyond it a value is zero or out of every range.
const EXPONENT_MAX: i32 = 100_000;
/// Powers of ten that a double holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Scans the JSON number with which `bytes` begins; none where there is none. What follows it is the caller's.
#[inline]
pub(crate) fn scan(bytes: &[u8]) -> Option<Number<'_>> {
    let negative = bytes.first() == Some(&b'-');
    let first = usize::from(negative);
    let (digits, end) = scan_digits(bytes, first, 0);
    if end == first || (end - first > 1 && bytes[first] == b'0') {
        return None;
    }
    scan_rest(bytes, negative, digits, end - first, end)
}

/// Reads a whole text as a number, more leniently than JSON: with a plus sign, with leading zeros and with
/// a bare point on either side.
pub(crate) fn parse(text: &[u8]) -> Option<Number<'_>> {
    let negative = text.first() == Some(&b'-');
    let first = usize::from(negative || text.first() == Some(&b'+'));
    let (digits, end) = scan_digits(text, first, 0);
    let number = if text.get(end) == Some(&b'.') && !text.get(end + 1).is_some_and(u8::is_ascii_digit) {
        // "5." is a number for Java, and so for Flink; "." is not.
        let whole = Number { text, negative, digits, exponent: 0, exact: end - first <= DIGITS_EXACT };
        return (end > first && end + 1 == text.len()).then_some(whole);
    } else {
        scan_rest(text, negative, digits, end - first, end)?
    };
    let has_digit = end > first || text.get(first) == Some(&b'.');
    (has_digit && number.text.len() == text.len()).then_some(number)
}

/// Continues `digits` with the decimal digits from `at` on; gives them and the position after them.
#[inline]
fn scan_digits(bytes: &[u8], mut at: usize, mut digits: u64) -> (u64, usize) {
    while let Some(&byte) = bytes.get(at) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        // Wraps beyond 19 digits; `exact` says so.
        digits = digits.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    (digits, at)
}

/// Scans fraction and exponent, of which either may be absent.
#[inline]
fn scan_rest(bytes: &[u8], negative: bool, mut digits: u64, mut count: usize, mut at: usize) -> Option<Number<'_>> {
    let mut exponent = 0;
    if bytes.get(at) == Some(&b'.') {
        let (all, end) = scan_digits(bytes, at + 1, digits);
        let fraction = end - at - 1;
        if fraction == 0 {
            return None;
        }
        digits = all;
        count += fraction;
        exponent = -i32::try_from(fraction).unwrap_or(EXPONENT_MAX);
        at = end;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let (power, end) = scan_exponent(bytes, at + 1)?;
        exponent = exponent.saturating_add(power).clamp(-EXPONENT_MAX, EXPONENT_MAX);
        at = end;
    }
    Some(Number { text: &bytes[..at], negative, digits, exponent, exact: count <= DIGITS_EXACT })
}

fn scan_exponent(bytes: &[u8], mut at: usize) -> Option<(i32, usize)> {
    let negative = bytes.get(at) == Some(&b'-');
    at += usize::from(matches!(bytes.get(at), Some(b'-' | b'+')));
    let first = at;
    let mut power = 0i32;
    while let Some(byte) = bytes.get(at).filter(|b| b.is_ascii_digit()) {
        power = power.saturating_mul(10).saturating_add(i32::from(byte - b'0')).min(EXPONENT_MAX);
        at += 1;
    }
    (at > first).then_some((if negative { -power } else { power }, at))
}

impl Number<'_> {
    /// As an integer.
    #[inline]
    pub(crate) fn to_i64(self) -> Result<i64, Misfit> {
        if self.exponent != 0 || !self.exact {
            return self.to_i64_slow();
        }
        if self.negative {
            // The magnitude of the least integer is one more than that of the greatest.
            return if self.digits <= 1 << 63 {
                Ok((self.digits as i64).wrapping_neg())
            } else {
                Err(Misfit::OutOfRange)
            };
        }
        i64::try_from(self.digits).map_err(|_| Misfit::OutOfRange)
    }

    #[cold]
    fn to_i64_slow(self) -> Result<i64, Misfit> {
        let (value, rounded) = self.to_scaled(0)?;
        if rounded {
            return Err(Misfit::NotWhole);
        }
        i64::try_from(value).map_err(|_| Misfit::OutOfRange)
    }

    /// As a double, correctly rounded.
    #[inline]
    pub(crate) fn to_f64(self) -> Result<f64, Misfit> {
        // Digits and power are both exact in a double, so the one operation rounds once (Clinger's fast path).
        if self.exact && self.digits <= 1 << 53 && (-22..=22).contains(&self.exponent) {
            let magnitude = self.digits as f64;
            let power = EXACT_POWERS[self.exponent.unsigned_abs() as usize];
            let magnitude = if self.exponent < 0 { magnitude / power } else { magnitude * power };
            return Ok(if self.negative { -magnitude } else { magnitude });
        }
        let value: f64 = self.parse_text()?;
        if value.is_finite() { Ok(value) } else { Err(Misfit::OutOfRange) }
    }

    /// As a float, correctly rounded.
    #[inline]
    pub(crate) fn to_f32(self) -> Result<f32, Misfit> {
        if self.exact && self.digits <= 1 << 24 && (-10..=10).contains(&self.exponent) {
            let magnitude = self.digits as f32;
            let power = EXACT_POWERS[self.exponent.unsigned_abs() as usize] as f32;
            let magnitude = if self.exponent < 0 { magnitude / power } else { magnitude * power };
            return Ok(if self.negative { -magnitude } else { magnitude });
        }
        let value: f32 = self.parse_text()?;
        if value.is_finite() { Ok(value) } else { Err(Misfit::OutOfRange) }
    }

    fn parse_text<T: std::str::FromStr>(self) -> Result<T, Misfit> {
        let text = std::str::from_utf8(self.text).expect("a scanned number is ASCII");
        text.parse().map_err(|_| Misfit::OutOfRange)
    }

    /// Times ten to the power of `scale`, rounded half away from zero; and whether it was rounded.
    pub(crate) fn to_scaled(self, scale: i32) -> Result<(i128, bool), Misfit> {
        let shift = self.exponent + scale;
        if self.exact && (0..=18).contains(&shift) {
            let value = i128::from(self.digits) * 10i128.pow(shift.unsigned_abs());
            return Ok((if self.negative { -value } else { value }, false));
        }
        self.to_scaled_slow(scale)
    }

    fn to_scaled_slow(self, scale: i32) -> Result<(i128, bool), Misfit> {
        let mantissa = self.text.iter().take_while(|b| !matches!(b, b'e' | b'E')).filter(|b| b.is_ascii_digit());
        let digits = mantissa.map(|b| b - b'0');
        let count = digits.clone().count();
        if digits.clone().all(|d| d == 0) {
            return Ok((0, false));
        }
        // The digits before the point, once the number is multiplied.
        let kept = i64::try_from(count).expect("a record is far smaller") + i64::from(self.exponent) + i64::from(scale);
        let kept = usize::try_from(kept.max(0)).expect("not negative");
        let mut value = 0i128;
        let mut take = |digit: u8| {
            value = value.checked_mul(10).and_then(|v| v.checked_add(i128::from(digit))).ok_or(Misfit::OutOfRange)?;
            Ok(())
        };
        digits.clone().take(kept).try_for_each(&mut take)?;
        (count..kept).try_for_each(|_| take(0))?;
        let mut dropped = digits.skip(kept).peekable();
        // Where the number lies wholly behind the point by more than one digit, the first dropped digit is a
        // zero that is not written.
        let hidden =
            i64::try_from(count).expect("a record is far smaller") + i64::from(self.exponent) + i64::from(scale) < 0;
        let up = !hidden && dropped.peek().is_some_and(|&d| d >= 5);
        let rounded = dropped.any(|d| d != 0);
        let value = value + i128::from(up);
        Ok((if self.negative { -value } else { value }, rounded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number<'_> {
        scan(text.as_bytes()).unwrap()
    }

    #[test]
    fn json_numbers_are_scanned_to_their_end() {
        for (text, length) in [("0,", 1), ("-12}", 3), ("1.50 ", 4), ("1e5]", 3), ("-0.1E-07x", 8), ("12abc", 2)] {
            assert_eq!(number(text).text.len(), length, "{text}");
        }
        for bad in ["", "-", "+1", ".5", "1.", "01", "1e", "1e+", "-a", "1.e5"] {
            assert!(scan(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn texts_are_read_as_java_reads_them() {
        for (text, value) in [("+12", 12.0), ("012", 12.0), (".5", 0.5), ("5.", 5.0), ("-1e3", -1000.0)] {
            assert_eq!(parse(text.as_bytes()).unwrap().to_f64(), Ok(value), "{text}");
        }
        for bad in ["", ".", "+", "-", "1 ", "1x", "--1", "e5", ".e5", "1..", "+-1"] {
            assert!(parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn integers_are_exact_up_to_their_bounds() {
        assert_eq!(number("9223372036854775807").to_i64(), Ok(i64::MAX));
        assert_eq!(number("-9223372036854775808").to_i64(), Ok(i64::MIN));
        assert_eq!(number("9223372036854775808").to_i64(), Err(Misfit::OutOfRange));
        assert_eq!(number("-9223372036854775809").to_i64(), Err(Misfit::OutOfRange));
        assert_eq!(number("99999999999999999999").to_i64(), Err(Misfit::OutOfRange));
        assert_eq!(number("12.0").to_i64(), Ok(12));
        assert_eq!(number("1.2e1").to_i64(), Ok(12));
        assert_eq!(number("12.5").to_i64(), Err(Misfit::NotWhole));
        assert_eq!(number("1e-400").to_i64(), Err(Misfit::NotWhole));
        assert_eq!(number("1e400").to_i64(), Err(Misfit::OutOfRange));
    }

    #[test]
    fn floats_agree_with_the_standard_library() {
        let mut seed = 7u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = f64::from_bits(seed);
            let short = (seed >> 40) as f64 / 1000.0;
            for value in [value, short, -short].into_iter().filter(|v| v.is_finite()) {
                for text in [format!("{value}"), format!("{value:e}")] {
                    assert_eq!(number(&text).to_f64().map(f64::to_bits), Ok(value.to_bits()), "{text}");
                    let narrow: f32 = text.parse().unwrap();
                    let expected = if narrow.is_finite() { Ok(narrow.to_bits()) } else { Err(Misfit::OutOfRange) };
                    assert_eq!(number(&text).to_f32().map(f32::to_bits), expected, "{text}");
                }
            }
        }
        assert_eq!(number("1e999").to_f64(), Err(Misfit::OutOfRange));
    }

    #[test]
    fn decimals_round_half_away_from_zero() {
        for (text, scale, value, rounded) in [
            ("1.25", 2, 125, false),
            ("1.255", 2, 126, true),
            ("-1.255", 2, -126, true),
            ("1.254", 2, 125, true),
            ("0.005", 2, 1, true),
            ("0.0049", 2, 0, true),
            ("0.0005", 2, 0, true),
            ("0.05", 0, 0, true),
            ("0.5", 0, 1, true),
            ("1e3", 1, 10_000, false),
            ("12345678901234567890.5", 1, 123_456_789_012_345_678_905, false),
            ("0e99", 3, 0, false),
            ("1.000", 0, 1, false),
        ] {
            assert_eq!(number(text).to_scaled(scale), Ok((value, rounded)), "{text}");
        }
        assert_eq!(number("1e50").to_scaled(0), Err(Misfit::OutOfRange));
    }
}
