//! The operator of MATCH_RECOGNIZE, as `EXPLAIN` shows it.

use arrow::datatypes::Schema;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::{AfterMatch, PatternElement, PatternMatch};

use super::duration;
use super::updating::{columns, order};

/// What the operator does.
pub(super) fn details(spec: &PatternMatch) -> Vec<String> {
    let input = &spec.input_schema;
    let name = |variable: usize| spec.variables[variable].name.as_str();
    let elements: Vec<String> =
        spec.elements.iter().map(|element| format!("{}{}", name(element.variable), quantifier(element))).collect();
    let within = spec.within_ms.map(|ms| format!(" within {}", duration(ms)));
    let mut lines = vec![
        format!("partition by: {}", columns(&spec.partition, input)),
        format!("order by: {}", order(&spec.order, input)),
        format!("pattern: {}{}", elements.join(" "), within.unwrap_or_default()),
    ];
    for variable in &spec.variables {
        let row = variable.row_condition.as_ref().map(|condition| shown(condition, input));
        let of_match = variable.match_condition.as_ref().map(|condition| shown(condition, &spec.reference_schema));
        let conditions: Vec<String> = row.into_iter().chain(of_match).collect();
        if !conditions.is_empty() {
            lines.push(format!("define: {} AS {}", variable.name, conditions.join(" AND ")));
        }
    }
    let measure = |named: &mainstem_plan::operator::NamedExpr| {
        format!("{} AS {}", shown(&named.expr, &spec.reference_schema), named.name)
    };
    let measures: Vec<String> = spec.measures.iter().map(measure).collect();
    if !measures.is_empty() {
        lines.push(format!("measures: {}", measures.join(", ")));
    }
    lines.push(match spec.skip {
        AfterMatch::PastLastRow => "after match: past the last row".to_owned(),
        AfterMatch::ToNextRow => "after match: to the next row".to_owned(),
        AfterMatch::ToFirst(variable) => format!("after match: to the first {}", name(variable)),
        AfterMatch::ToLast(variable) => format!("after match: to the last {}", name(variable)),
    });
    lines
}

/// What the operator keeps, and when it lets go of it.
pub(super) fn state(spec: &PatternMatch) -> String {
    let released = match spec.within_ms {
        Some(ms) => format!("released when the watermark is {} behind that row", duration(ms)),
        None if spec.elements.iter().any(|element| element.max.is_none()) => {
            "for as long as rows go on to match (careful: without WITHIN there is no bound in time)".to_owned()
        }
        None => "released when the next rows do not match".to_owned(),
    };
    format!("rows until the watermark passes them; rows from the first of the oldest match under way on, {released}")
}

/// An expression without the quotes that the names of references would have.
fn shown(expr: &Expr, schema: &Schema) -> String {
    expr.display(schema).to_string().replace('`', "")
}

fn quantifier(element: &PatternElement) -> String {
    let count = match (element.min, element.max) {
        (1, Some(1)) => return String::new(),
        (0, None) => "*".to_owned(),
        (1, None) => "+".to_owned(),
        (0, Some(1)) => "?".to_owned(),
        (min, None) => format!("{{{min},}}"),
        (min, Some(max)) if min == max => return format!("{{{min}}}"),
        (min, Some(max)) => format!("{{{min},{max}}}"),
    };
    if element.greedy { count } else { count + "?" }
}
