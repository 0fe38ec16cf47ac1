"""The queries of the benchmark. A query is a SQL file that is written once and runs on both engines; the harness puts
in where rows come from and where they go.

- A table that the query reads and does not create itself comes from the files in `TABLES`.
- Every table of the connector 'nexmark' gets the number of events, and its rows from JSON files with `--source json`.
- A table of files with a relative path lies in the directory of the inputs; where `make_<name>.sql` stands beside the
  query, it has written the files.
- Every table that is written to becomes a 'blackhole', but one of files stays one of files: writing them is the query's
  work. When results are compared, all become directories of JSON files.
"""

import string
from dataclasses import dataclass, field
from pathlib import Path

from harness import sql

BENCHES = Path(__file__).resolve().parent.parent
EXAMPLES = BENCHES.parent / "examples" / "nexmark"
TABLES = [EXAMPLES / "generator.sql", BENCHES / "sql" / "keyed.sql"]
KINDS = {"person": (0, 1), "auction": (1, 4), "bid": (4, 50)}
ROUND = 50


class QueryError(Exception):
    """A query file that the harness cannot use."""


def known():
    """All queries by their names, in the order of their numbers."""
    paths = [*EXAMPLES.glob("q[0-9]*.sql"), *(BENCHES / "sql").glob("*.sql")]
    files = {file.stem: file for file in paths if file not in TABLES}
    return dict(sorted(files.items(), key=lambda item: (natural(item[0]), item[0])))


def natural(name):
    digits = "".join(c for c in name.partition("_")[0].lstrip("q") if c.isdigit())
    return (0, int(digits)) if name.startswith("q") and digits else (1, 0)


def events_of(kind, events):
    """How many of the first `events` events are of a kind; of all kinds without one."""
    if kind is None:
        return events
    first, last = KINDS[kind]
    whole, rest = divmod(events, ROUND)
    return whole * (last - first) + min(max(rest - first, 0), last - first)


@dataclass
class Query:
    """A query with its sources and sinks put in."""

    name: str
    statements: list = field(default_factory=list)
    # Rows that the sources give.
    rows: int = 0
    # Why two runs do not give the same rows, if so.
    varies: str = ""
    sinks: list = field(default_factory=list)

    def text(self):
        return ";\n\n".join(self.statements) + ";\n"

    def for_flink(self):
        """The statements for Flink, whose connector 'filesystem' cannot be looked up in: `csv-lookup` of
        `flink/nexmark-source` stands in for it."""
        looked_up = set().union(*map(sql.looked_up, self.statements))

        def changed(statement):
            options = sql.options(statement) if sql.created(statement) in looked_up else None
            if options is None or options.get("connector") != "filesystem":
                return statement
            return sql.with_options(statement, {**options, "connector": "csv-lookup"})

        return [changed(statement) for statement in self.statements]


@dataclass
class Settings:
    """Where rows come from and go to. `json(kind)` gives the directory of JSON files of a kind of event; absent, the
    generator makes them. `made(script, path)` gives the directory of other input, which the script writes to a relative
    path."""

    events: int
    made: object
    json: object = None
    # For output that is files; emptied before each run.
    output: Path = None
    # All results become files.
    is_compared: bool = False


def prepare(name, file, settings):
    values = {"events": settings.events, "last": settings.events - 1}
    try:
        statements = parse(file, values)
        statements = missing_tables(statements, values) + statements
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(f"{file}: {error}") from error
    sinks = [target for target in map(sql.inserted, statements) if target]
    if not sinks:
        raise QueryError(f"{file}: no INSERT INTO; Flink needs one to make a job")
    query = Query(name, sinks=sorted(set(sinks)))
    text = " ".join(statements).upper()
    if "PROCTIME()" in text and "DESCRIPTOR" in text:
        query.varies = "windows over processing time depend on the clock"
    for statement in statements:
        query.statements.append(placed(statement, query, settings, file))
    return query


def parse(file, values):
    # Other dollar signs, as in regular expressions, stay.
    return sql.statements(string.Template(file.read_text(encoding="utf-8")).safe_substitute(values))


def missing_tables(statements, values):
    created = {sql.created(statement) for statement in statements}
    read = set().union(*map(sql.read, statements)) - created
    return [table for file in TABLES for table in parse(file, values) if sql.created(table) in read]


def placed(statement, query, settings, file):
    """The statement with its source or sink put in; counts the rows of sources."""
    options = sql.options(statement)
    if options is None:
        return statement
    name, connector = sql.created(statement), options.get("connector")
    if name in query.sinks:
        return sql.with_options(statement, sink(options, settings, name))
    if connector == "nexmark":
        kind = options.get("table")
        query.rows += events_of(kind, settings.events)
        if settings.json and kind:
            return sql.with_options(statement, {"connector": "filesystem", "path": settings.json(kind), "format": "json"})
        return sql.with_options(statement, {**options, "events.num": settings.events})
    if connector == "filesystem" and not options.get("path", "/").startswith("/"):
        script = file.parent / f"make_{Path(options['path']).name}.sql"
        return sql.with_options(statement, {**options, "path": settings.made(script, options["path"])})
    if connector == "datagen":
        query.rows += settings.events
        query.varies = "'datagen' draws other rows on each side"
    return statement


def sink(options, settings, name):
    path = settings.output / name
    if settings.is_compared:
        return {"connector": "filesystem", "path": path, "format": "json"}
    if options.get("connector") == "filesystem":
        return {**options, "path": path}
    return {"connector": "blackhole"}
