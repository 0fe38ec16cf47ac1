//! The naive search: goes through all ways to hand a partition's rows to the pattern, from each row on.

use std::collections::BTreeSet;

use mainstem_plan::operator::AfterMatch;

use super::{Case, Given, Row};

/// Is called with the rows of a match and their variables.
type Each<'a> = dyn FnMut(&[(usize, Row)]) + 'a;

/// All ways in which rows from `at` on, behind those that are taken, fulfil the elements from `element` on, of which
/// the first has taken `count` rows. Calls back with whole matches.
fn ways(
    case: &Case,
    rows: &[Row],
    at: usize,
    taken: &mut Vec<(usize, Row)>,
    element: usize,
    count: u32,
    each: &mut Each<'_>,
) {
    let Some(of) = case.elements.get(element) else { return each(taken) };
    let is_in_time = |row: &Row| match (case.within_ms, taken.first()) {
        (Some(within), Some((_, first))) => row.1 - first.1 < within,
        _ => true,
    };
    let next = rows.get(at).filter(|row| is_in_time(row));
    let takes = next.is_some_and(|row| case.conditions[of.variable].holds(of.variable, taken, row));
    let takes = takes && of.max.is_none_or(|max| count < max);
    // What a greedy variable can take, the next one does not get.
    let is_loop = of.greedy && of.max != Some(1) && of.max != Some(of.min);
    let leaves = count >= of.min && !(is_loop && takes);
    // The preferred way comes first.
    for taking in [of.greedy, !of.greedy] {
        if taking && takes {
            taken.push((of.variable, rows[at]));
            ways(case, rows, at + 1, taken, element, count + 1, each);
            taken.pop();
        } else if !taking && leaves {
            ways(case, rows, at, taken, element + 1, 0, each);
        }
    }
}

/// The match that begins with a row: of all, the one that ends first.
fn match_at(case: &Case, rows: &[Row], at: usize) -> Option<Vec<(usize, Row)>> {
    let mut best: Option<Vec<(usize, Row)>> = None;
    ways(case, rows, at, &mut Vec::new(), 0, 0, &mut |found| {
        if best.as_ref().is_none_or(|best| found.len() < best.len()) {
            best = Some(found.to_vec());
        }
    });
    best
}

fn measures(found: &[(usize, Row)]) -> Vec<Option<i64>> {
    let of = |variable: usize| found.iter().filter(move |(of, _)| *of == variable).map(|(_, row)| row.2);
    vec![
        Some(found[0].1.3),
        Some(found.len() as i64),
        of(1).next_back(),
        of(0).reduce(|sum, value| sum + value),
        of(1).nth(1),
        found.last().map(|(_, row)| row.1),
    ]
}

/// What all rows give, sorted; none where skipping fails.
pub(super) fn expected(case: &Case, rows: &[Row]) -> Option<Vec<Given>> {
    let partitions: BTreeSet<i64> = rows.iter().map(|row| row.0).collect();
    let mut all = Vec::new();
    for partition in partitions {
        let mut rows: Vec<Row> = rows.iter().filter(|row| row.0 == partition).copied().collect();
        rows.sort_by_key(|row| (row.1, row.3, row.2));
        let mut at = 0;
        while at < rows.len() {
            let Some(found) = match_at(case, &rows, at) else {
                at += 1;
                continue;
            };
            all.push((partition, measures(&found)));
            let place = |variable: usize, last: bool| {
                let mut places = (0..found.len()).filter(|place| found[*place].0 == variable);
                let place = if last { places.next_back() } else { places.next() };
                place.filter(|place| *place > 0)
            };
            at += match case.skip {
                AfterMatch::PastLastRow => found.len(),
                AfterMatch::ToNextRow => 1,
                AfterMatch::ToFirst(variable) => place(variable, false)?,
                AfterMatch::ToLast(variable) => place(variable, true)?,
            };
        }
    }
    all.sort();
    Some(all)
}
