//! What a session knows: declarations and settings, as the text that the user has typed. A statement is planned as one
//! file together with them, by the planner that plans all files, so nothing here knows what SQL means.

use std::collections::BTreeMap;

use anyhow::bail;
use mainstem_planner::{Declaration, JobPlan, SqlError};

use super::statement::{Declared, Kind};

/// Declarations of a session at most.
const DECLARATIONS_MAX: usize = 10_000;

/// Settings of the shell itself, with their default and what they do.
pub(super) const OWN_SETTINGS: [(&str, &str, &str); 3] = [
    (RESULT_MODE, "auto", "auto, table (kept up to date) or changelog (each change as it comes)"),
    (RESULT_ROWS, "100000", "rows of a table that is kept up to date, at most"),
    (DML_SYNC, "false", "whether INSERT waits until its job has ended"),
];
const RESULT_MODE: &str = "sql-client.execution.result-mode";
const RESULT_ROWS: &str = "sql-client.execution.max-table-result.rows";
const DML_SYNC: &str = "table.dml-sync";
/// The setting that names a job.
pub(super) const JOB_NAME: &str = "pipeline.name";

/// How the rows of a query are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResultMode {
    /// As a table where the result changes, else row by row.
    Auto,
    Table,
    Changelog,
}

/// See the module.
#[derive(Default)]
pub(super) struct Session {
    declared: Vec<Entry>,
    settings: BTreeMap<String, String>,
    own: BTreeMap<String, String>,
    /// What the declarations say, for completion and DESCRIBE.
    known: Vec<Declaration>,
}

struct Entry {
    kind: Kind,
    name: String,
    text: String,
}

/// A statement together with all that it may refer to.
pub(super) struct Script {
    pub(super) text: String,
    /// Lines before the statement.
    before: u64,
    statement: String,
}

impl Session {
    /// Tables and views, in the order of their declaration.
    pub(super) fn known(&self) -> &[Declaration] {
        &self.known
    }

    /// All settings that are set.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&String, &String)> {
        self.settings.iter().chain(&self.own)
    }

    /// The value of a setting of jobs.
    pub(super) fn setting(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str)
    }

    /// How results are shown.
    pub(super) fn result_mode(&self) -> ResultMode {
        match self.own.get(RESULT_MODE).map(String::as_str) {
            Some("table") => ResultMode::Table,
            Some("changelog") => ResultMode::Changelog,
            _ => ResultMode::Auto,
        }
    }

    /// Rows of a table that is kept up to date, at most.
    pub(super) fn result_rows_max(&self) -> usize {
        self.own.get(RESULT_ROWS).and_then(|rows| rows.parse().ok()).unwrap_or(100_000)
    }

    /// Whether INSERT waits for the end of its job.
    pub(super) fn waits_for_jobs(&self) -> bool {
        self.own.get(DML_SYNC).is_some_and(|value| value == "true")
    }

    /// Declares something. False: it was there already, and that is no mistake.
    pub(super) fn create(&mut self, declared: &Declared, text: &str) -> anyhow::Result<bool> {
        let is_there = self.declared.iter().any(|entry| entry.name == declared.name && same(entry.kind, declared.kind));
        if is_there && declared.leniently {
            return Ok(false);
        }
        if is_there {
            let (kind, name) = (declared.kind.word(), &declared.name);
            bail!("'{name}' is declared already; DROP {} {name} first", kind.to_uppercase());
        }
        if self.declared.len() >= DECLARATIONS_MAX {
            bail!("a session holds at most {DECLARATIONS_MAX} declarations; DROP some");
        }
        let script = self.script(text);
        self.known = mainstem_planner::declared(&script.text).map_err(|error| self.told(&error, &script))?;
        self.declared.push(Entry { kind: declared.kind, name: declared.name.clone(), text: text.to_owned() });
        Ok(true)
    }

    /// Takes a declaration away. False: it was not there, and that is no mistake.
    pub(super) fn drop(&mut self, declared: &Declared) -> anyhow::Result<bool> {
        let (kind, name) = (declared.kind, &declared.name);
        let Some(at) = self.declared.iter().position(|entry| entry.name == *name && entry.kind == kind) else {
            match self.declared.iter().find(|entry| entry.name == *name) {
                Some(entry) => bail!("'{name}' is a {}", entry.kind.word()),
                None if declared.leniently => return Ok(false),
                None => bail!("there is no {} '{name}'", kind.word()),
            }
        };
        let entry = self.declared.remove(at);
        let script = self.script("");
        match mainstem_planner::declared(&script.text) {
            Ok(known) => {
                self.known = known;
                Ok(true)
            }
            Err(error) => {
                let user = self.entry_at(error.line).map(|user| user.name.clone());
                self.declared.insert(at, entry);
                let user = user.map_or(String::new(), |user| format!(" '{user}' needs it; drop that first."));
                bail!("'{name}' cannot be dropped:{user} {}", error.message)
            }
        }
    }

    /// Sets something for all statements that follow.
    pub(super) fn set(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        let legal = match key {
            RESULT_MODE => ["auto", "table", "changelog"].contains(&value),
            RESULT_ROWS => value.parse::<usize>().is_ok_and(|rows| (1..=10_000_000).contains(&rows)),
            DML_SYNC => ["true", "false"].contains(&value),
            _ => {
                mainstem_planner::declared(&setting(key, value)).map_err(|error| anyhow::anyhow!(error.message))?;
                self.settings.insert(key.to_owned(), value.to_owned());
                return Ok(());
            }
        };
        if !legal {
            let form = OWN_SETTINGS.iter().find(|(known, ..)| *known == key).map_or("", |(_, _, help)| help);
            bail!("'{key}' = '{value}': it is {form}");
        }
        self.own.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Sets something, or everything, back. False: it was not set.
    pub(super) fn reset(&mut self, key: Option<&str>) -> bool {
        match key {
            Some(key) => self.settings.remove(key).is_some() || self.own.remove(key).is_some(),
            None => {
                self.settings.clear();
                self.own.clear();
                true
            }
        }
    }

    /// The declaration of a table or a view as it was typed; a difference of case only is forgiven where it is clear.
    pub(super) fn text_of(&self, name: &str) -> anyhow::Result<&str> {
        let relation = |entry: &&Entry| entry.kind != Kind::Secret;
        let exact = self.declared.iter().filter(relation).find(|entry| entry.name == name);
        let mut alike = self.declared.iter().filter(relation).filter(|entry| entry.name.eq_ignore_ascii_case(name));
        match (exact, alike.next(), alike.next()) {
            (Some(entry), ..) | (None, Some(entry), None) => Ok(&entry.text),
            _ => bail!("there is no table and no view '{name}'; SHOW TABLES and SHOW VIEWS list them"),
        }
    }

    /// What is known of a table or a view, as [`Session::text_of`].
    pub(super) fn describe(&self, name: &str) -> anyhow::Result<&Declaration> {
        let exact = self.known.iter().find(|known| known.name == name);
        let mut alike = self.known.iter().filter(|known| known.name.eq_ignore_ascii_case(name));
        match (exact, alike.next(), alike.next()) {
            (Some(known), ..) | (None, Some(known), None) => Ok(known),
            _ => bail!("there is no table and no view '{name}'; SHOW TABLES and SHOW VIEWS list them"),
        }
    }

    /// The statement with everything that is declared and set.
    pub(super) fn script(&self, statement: &str) -> Script {
        self.script_with(statement, |_| true)
    }

    /// The same with some of the settings.
    pub(super) fn script_with(&self, statement: &str, wanted: impl Fn(&str) -> bool) -> Script {
        let mut text: String = self.declared.iter().map(|entry| format!("{}\n;\n", entry.text)).collect();
        let settings = self.settings.iter().filter(|(key, _)| wanted(key));
        text.extend(settings.map(|(key, value)| setting(key, value) + ";\n"));
        let before = text.matches('\n').count() as u64;
        text += statement;
        // On a line of its own: the statement may end in a comment.
        text += "\n;\n";
        Script { text, before, statement: statement.to_owned() }
    }

    /// Plans a script.
    pub(super) fn plan(&self, script: &Script) -> anyhow::Result<JobPlan> {
        mainstem_planner::plan(&script.text).map_err(|error| self.told(&error, script))
    }

    /// A mistake as the user looks for it: in the statement, or in a declaration.
    fn told(&self, error: &SqlError, script: &Script) -> anyhow::Error {
        let mut error = error.clone();
        if error.line > script.before {
            error.line -= script.before;
            return anyhow::anyhow!("{}", error.render(&script.statement));
        }
        match self.entry_at(error.line) {
            Some(entry) => anyhow::anyhow!("in the declaration of '{}': {}", entry.name, error.message),
            None => anyhow::anyhow!("{}", error.message),
        }
    }

    /// The declaration that stands in a line of a script.
    fn entry_at(&self, line: u64) -> Option<&Entry> {
        let mut end = 0;
        self.declared.iter().find(|entry| {
            end += entry.text.matches('\n').count() as u64 + 2;
            line > 0 && line <= end
        })
    }

    /// A line of a script's text as people look for it: of the statement, or the declaration that it is in.
    pub(super) fn place(&self, script: &Script, line: u64) -> String {
        if line > script.before {
            return format!("line {}", line - script.before);
        }
        self.entry_at(line).map_or_else(|| format!("line {line}"), |entry| format!("declaration of {}", entry.name))
    }
}

/// Tables and views share their names.
fn same(a: Kind, b: Kind) -> bool {
    (a == Kind::Secret) == (b == Kind::Secret)
}

/// A text as SQL has it.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn setting(key: &str, value: &str) -> String {
    // A line of its own, or the places of mistakes would move.
    format!("SET {} = {}", quoted(key), quoted(value)).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "CREATE TABLE t (\n  a BIGINT\n) WITH ('connector' = 'datagen')";

    fn create(session: &mut Session, text: &str) -> anyhow::Result<bool> {
        let super::super::statement::Statement::Create(declared) = super::super::statement::statement(text).unwrap()
        else {
            panic!("{text}")
        };
        session.create(&declared, text)
    }

    fn declared(kind: Kind, name: &str) -> Declared {
        Declared { kind, name: name.to_owned(), leniently: false }
    }

    #[test]
    fn mistakes_are_placed_in_the_statement() {
        let mut session = Session::default();
        create(&mut session, TABLE).unwrap();
        session.set("parallelism.default", "2").unwrap();
        let script = session.script("SELECT\n  b FROM t");
        let error = session.plan(&script).unwrap_err().to_string();
        assert!(error.starts_with("line 2, column 3: ") && error.contains("2 |   b FROM t"), "{error}");
        assert_eq!(session.place(&script, 1), "declaration of t");
        assert_eq!(session.place(&script, 6), "line 1");
        assert!(
            create(&mut session, "CREATE VIEW v AS SELECT c FROM t").unwrap_err().to_string().contains("column 25")
        );
        assert_eq!(session.known().len(), 1);
    }

    #[test]
    fn what_others_need_is_not_dropped() {
        let mut session = Session::default();
        create(&mut session, TABLE).unwrap();
        create(&mut session, "CREATE VIEW v AS SELECT a + 1 AS b FROM t").unwrap();
        assert!(create(&mut session, TABLE).unwrap_err().to_string().contains("'t' is declared already"));
        let error = session.drop(&declared(Kind::Table, "t")).unwrap_err().to_string();
        assert!(error.contains("'t' cannot be dropped: 'v' needs it"), "{error}");
        assert_eq!(session.describe("V").unwrap().columns[0].data_type, "BIGINT");
        assert!(session.drop(&declared(Kind::View, "t")).unwrap_err().to_string().contains("'t' is a table"));
        session.drop(&declared(Kind::View, "v")).unwrap();
        session.drop(&declared(Kind::Table, "t")).unwrap();
        assert!(session.known().is_empty());
    }

    #[test]
    fn settings_are_checked_when_they_are_set() {
        let mut session = Session::default();
        assert!(session.set("no.such.key", "1").unwrap_err().to_string().contains("no.such.key"));
        assert!(session.set(RESULT_MODE, "x").unwrap_err().to_string().contains("auto, table"));
        session.set(RESULT_MODE, "changelog").unwrap();
        assert_eq!(session.result_mode(), ResultMode::Changelog);
        assert!(session.reset(Some(RESULT_MODE)) && !session.reset(Some(RESULT_MODE)));
        assert_eq!(session.result_mode(), ResultMode::Auto);
    }
}
