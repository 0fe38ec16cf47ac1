//! The SQL of a job: one file, or several that are read as one, so that queries can share the tables of another
//! file. Each is limited in size; an error points to its place in the file that it is in.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use mainstem_planner::{JobPlan, Replay, SqlError};

/// A SQL file may be so large.
const SQL_BYTES_MAX: u64 = 1 << 20;

/// See the module.
pub(crate) struct SqlFiles {
    files: Vec<(PathBuf, String)>,
}

impl SqlFiles {
    /// Reads files; there is at least one.
    pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<SqlFiles> {
        let files = paths
            .iter()
            .map(|path| Ok((path.clone(), read(path, SQL_BYTES_MAX)?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(SqlFiles { files })
    }

    /// Files whose text is known already, by name.
    pub(crate) fn of(files: Vec<(String, String)>) -> anyhow::Result<SqlFiles> {
        if let Some((name, text)) = files.iter().find(|(_, text)| text.len() as u64 > SQL_BYTES_MAX) {
            bail!("the SQL file '{name}' has {} bytes; at most {SQL_BYTES_MAX} are accepted", text.len());
        }
        Ok(SqlFiles { files: files.into_iter().map(|(name, text)| (name.into(), text)).collect() })
    }

    /// The files by name.
    pub(crate) fn into_parts(self) -> Vec<(String, String)> {
        self.files.into_iter().map(|(path, text)| (path.display().to_string(), text)).collect()
    }

    /// All text, in the order of the files; each begins on a line of its own.
    pub(crate) fn text(&self) -> String {
        self.files.iter().map(|(_, text)| on_lines_of_its_own(text)).collect()
    }

    /// Plans all statements as one job.
    pub(crate) fn plan(&self) -> anyhow::Result<JobPlan> {
        match mainstem_planner::plan(&self.text()) {
            Ok(plan) => Ok(plan),
            Err(error) => bail!("{}", self.describe(error)),
        }
    }

    /// The same; a mistake comes with its line and column in the file that it is in, 0 where there are none.
    pub(crate) fn plan_or_mistake(&self) -> Result<JobPlan, (String, u64, u64)> {
        mainstem_planner::plan(&self.text()).map_err(|error| self.mistake(error))
    }

    /// Plans one query alone, chosen by a line of the last file; mistakes as above.
    pub(crate) fn plan_preview(&self, line: Option<u64>) -> Result<JobPlan, (String, u64, u64)> {
        let before = self.files.split_last().map_or(&[][..], |(_, before)| before);
        let lines_before: usize = before.iter().map(|(_, text)| on_lines_of_its_own(text).lines().count()).sum();
        let line = line.map(|line| line.saturating_add(lines_before as u64));
        mainstem_planner::plan_preview(&self.text(), line).map_err(|error| self.mistake(error))
    }

    fn mistake(&self, error: SqlError) -> (String, u64, u64) {
        let (line, column) = (self.line_in_file(error.line), error.column);
        (self.describe(error), line, column)
    }

    /// A line of all text as that of the file that it is in.
    pub(crate) fn line_in_file(&self, line: u64) -> u64 {
        self.file_of(line).map_or(line, |(_, _, line)| line)
    }

    /// Plans the job that feeds dead letters back, with the tables of the files.
    pub(crate) fn plan_replay(&self, replay: &Replay<'_>) -> anyhow::Result<JobPlan> {
        match mainstem_planner::plan_replay(&self.text(), replay) {
            Ok(plan) => Ok(plan),
            Err(error) => bail!("{}", self.describe(error)),
        }
    }

    /// The last file, which names the job.
    pub(crate) fn last(&self) -> &Path {
        self.files.last().map_or(Path::new(""), |(path, _)| path)
    }

    /// A line of all text as people look for it: `line N`, or `FILE:N` where there are several files.
    pub(crate) fn place(&self, line: u64) -> String {
        match self.file_of(line) {
            Some((path, _, line)) if self.files.len() > 1 => format!("{}:{line}", path.display()),
            _ => format!("line {line}"),
        }
    }

    /// The file that a line of all text is in, the file's text, and the line's number there.
    fn file_of(&self, mut line: u64) -> Option<(&Path, &str, u64)> {
        for (path, text) in &self.files {
            let lines = on_lines_of_its_own(text).lines().count() as u64;
            if line <= lines {
                return Some((path, text, line));
            }
            line -= lines;
        }
        None
    }

    fn describe(&self, mut error: SqlError) -> String {
        let of_a_file = self.file_of(error.line).filter(|_| error.line > 0);
        let Some((path, text, line)) = of_a_file else { return format!("{self}: {error}") };
        error.line = line;
        format!("{}:{}", path.display(), error.render(text))
    }
}

impl fmt::Display for SqlFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<String> = self.files.iter().map(|(path, _)| path.display().to_string()).collect();
        f.write_str(&paths.join(" "))
    }
}

/// Reads one file, of which at most so many bytes are accepted.
pub(crate) fn read(path: &Path, bytes_max: u64) -> anyhow::Result<String> {
    let describe = || format!("cannot read the SQL file '{}'", path.display());
    let size = std::fs::metadata(path).with_context(describe)?.len();
    if size > bytes_max {
        bail!("the SQL file '{}' has {size} bytes; at most {bytes_max} are accepted", path.display());
    }
    std::fs::read_to_string(path).with_context(describe)
}

fn on_lines_of_its_own(text: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_points_into_the_file_that_it_is_in() {
        let tables = "CREATE TABLE t (a BIGINT) WITH ('connector' = 'nexmark', 'table' = 'bid');";
        let files = |query: &str| SqlFiles {
            files: vec![("tables.sql".into(), tables.to_owned()), ("q.sql".into(), query.to_owned())],
        };
        let error = files("-- a query\nSELECT b FROM t").plan().unwrap_err().to_string();
        assert!(error.starts_with("q.sql:line 2, column 8: "), "{error}");
        assert!(error.contains("2 | SELECT b FROM t"), "{error}");
        assert!(files("SELECT 1 +").plan().unwrap_err().to_string().starts_with("q.sql:line 1"));
    }
}
