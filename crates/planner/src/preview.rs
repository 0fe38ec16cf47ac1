//! The job that shows what one query of a text gives, instead of doing what the text says. Called for the preview of an editor,
//! whose text is often half written: its other queries count as little as if they were not there.

use crate::statement::{Explain, Statement, StatementKind};

/// The setting that has late rows written to a table.
const LATE_ROWS: &str = "late-rows.table";

/// What is left of a text: its declarations and settings, and one query. That is the last that begins at or above a line, or the
/// first where all begin below it; without a line, the last.
pub(crate) fn only(statements: Vec<Statement>, line: Option<u64>) -> Vec<Statement> {
    let queries = || statements.iter().enumerate().filter(|(_, statement)| is_query(statement));
    let is_above = |statement: &Statement| line.is_none_or(|line| statement.at.0.line <= line);
    let above = queries().rfind(|(_, statement)| is_above(statement));
    let chosen = above.or_else(|| queries().next()).map(|(index, _)| index);
    let mut left = Vec::new();
    for (index, mut statement) in statements.into_iter().enumerate() {
        let counts = match &mut statement.kind {
            // One that is to be explained is a query as well.
            StatementKind::Output { explain, .. } => {
                *explain = Explain::Nothing;
                Some(index) == chosen
            }
            StatementKind::ExplainGuarantees => false,
            StatementKind::Set { key, .. } => key != LATE_ROWS,
            _ => true,
        };
        if counts {
            left.push(statement);
        }
    }
    left
}

fn is_query(statement: &Statement) -> bool {
    matches!(statement.kind, StatementKind::Output { .. })
}

#[cfg(test)]
mod tests {
    use crate::plan_preview;

    const TABLES: &str = "CREATE TABLE t (a BIGINT) WITH ('connector' = 'datagen');
CREATE TABLE first (a BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE second (a BIGINT) WITH ('connector' = 'blackhole');
SET 'late-rows.table' = 'nowhere';
";

    #[test]
    fn the_query_at_a_line_is_the_one_that_is_shown() {
        let sql = format!(
            "{TABLES}
INSERT INTO first
SELECT a FROM t;
EXPLAIN GUARANTEES;
EXPLAIN SELECT a + 1 AS more FROM t;
EXECUTE STATEMENT SET BEGIN
  INSERT INTO first SELECT 1;
  INSERT INTO second SELECT nothing FROM t;
END;"
        );
        let shown = |line| {
            plan_preview(&sql, line).map(|plan| {
                assert!(!plan.explain_only && plan.sinks.len() == 1, "{plan:?}");
                (plan.sinks[0].table.clone(), plan.sinks[0].statement_line)
            })
        };
        for (line, table, begins) in
            [(1, "first", 6), (6, "first", 6), (7, "first", 6), (8, "first", 6), (9, "select 1", 9), (11, "first", 11)]
        {
            assert_eq!(shown(Some(line)), Ok((table.to_owned(), begins)), "line {line}");
        }
        // Only what is shown has to be right.
        for line in [Some(12), Some(99), None] {
            let error = shown(line).unwrap_err();
            assert_eq!((error.line, error.column), (12, 29), "{error}");
        }
        let error = plan_preview(TABLES, None).unwrap_err();
        assert!(error.message.contains("no INSERT and no SELECT"), "{error}");
    }
}
