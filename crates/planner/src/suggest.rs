//! The name that was probably meant. Used by every message about an unknown name.

/// The candidate that differs least, if it differs little: in at most two letters of five.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let scored = candidates.into_iter().map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate));
    let (best, candidate) = scored.min_by_key(|(distance, _)| *distance)?;
    (best <= name.chars().count().max(3) * 2 / 5).then_some(candidate)
}

/// `; did you mean 'x'?`, or, where nothing is near, the first of what there is.
pub(crate) fn advice(name: &str, what: &str, candidates: &[&str]) -> String {
    /// How many names a message lists.
    const LISTED: usize = 12;
    if let Some(known) = nearest(name, candidates.iter().copied()) {
        return format!("; did you mean '{known}'?");
    }
    if candidates.is_empty() {
        return String::new();
    }
    let more = if candidates.len() > LISTED { ", ..." } else { "" };
    format!("; {what}: {}{more}", candidates[..candidates.len().min(LISTED)].join(", "))
}

/// Levenshtein's distance, where two letters that have changed places are one slip.
fn distance(left: &str, right: &str) -> usize {
    /// Names are short; a text of a megabyte must not cost its square.
    const LENGTH_MAX: usize = 128;
    let left: Vec<char> = left.chars().take(LENGTH_MAX).collect();
    let right: Vec<char> = right.chars().take(LENGTH_MAX).collect();
    let mut before = Vec::new();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in right.iter().enumerate() {
            let replaced = previous[column] + usize::from(a != b);
            let mut least = replaced.min(previous[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *a == right[column - 1] && left[row - 1] == *b {
                least = least.min(before[column - 1] + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_slips_are_found_and_strangers_are_not() {
        assert_eq!(nearest("prise", ["bidder", "price"]), Some("price"));
        assert_eq!(nearest("cuont", ["cot", "count"]), Some("count"));
        assert_eq!(nearest("DATETIME", ["dateTime", "date"]), Some("dateTime"));
        assert_eq!(nearest("xyz", ["bidder", "price"]), None);
        assert_eq!(advice("xyz", "known are", &["a", "b"]), "; known are: a, b");
    }
}
