"""The queries of the benchmark. A query is a SQL file that is written once and runs on both engines; the harness puts
in where rows come from and where they go.

- A table that the query reads and does not create itself comes from `sql/tables/<name>.sql`.
- Every table of the connector 'nexmark' gets the number of events, and its rows from JSON files with `--source json`.
- Every table that is written to becomes a 'blackhole', or a directory of JSON files when results are compared.
"""

import string
from dataclasses import dataclass, field
from pathlib import Path

from harness import sql

BENCHES = Path(__file__).resolve().parent.parent
# In this order: a name in the first directory hides the same name in a later one.
DIRECTORIES = [BENCHES / "sql", BENCHES.parent / "examples" / "nexmark"]
KINDS = {"person": (0, 1), "auction": (1, 4), "bid": (4, 50)}
ROUND = 50


class QueryError(Exception):
    """A query file that the harness cannot use."""


def known():
    """All queries by their names, in the order of their numbers."""
    files = {}
    for directory in reversed(DIRECTORIES):
        files.update({file.stem: file for file in directory.glob("*.sql")})
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
    # Whether both engines read the same rows: those of 'datagen' are drawn anew each time.
    is_repeatable: bool = True
    sinks: list = field(default_factory=list)

    def text(self):
        return ";\n\n".join(self.statements) + ";\n"


@dataclass
class Settings:
    """`data(kind)` gives the directory of JSON files of a kind of event, where rows come from files."""

    events: int
    data: object = None
    # Directory for results; without one they vanish.
    results: Path = None


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
    for statement in statements:
        query.statements.append(placed(statement, query, settings))
    return query


def parse(file, values):
    # Other dollar signs, as in regular expressions, stay.
    return sql.statements(string.Template(file.read_text(encoding="utf-8")).safe_substitute(values))


def missing_tables(statements, values):
    created = {sql.created(statement) for statement in statements}
    read = set().union(*map(sql.read, statements)) - created
    files = [BENCHES / "sql" / "tables" / f"{name}.sql" for name in sorted(read)]
    return [statement for file in files if file.exists() for statement in parse(file, values)]


def placed(statement, query, settings):
    """The statement with its source or sink put in; counts the rows of sources."""
    options = sql.options(statement)
    if options is None:
        return statement
    if sql.created(statement) in query.sinks:
        target = {"connector": "blackhole"}
        if settings.results:
            target = {"connector": "filesystem", "path": settings.results / sql.created(statement), "format": "json"}
        return sql.with_options(statement, target)
    if options.get("connector") == "nexmark":
        kind = options.get("table")
        query.rows += events_of(kind, settings.events)
        if settings.data and kind:
            return sql.with_options(statement, {"connector": "filesystem", "path": settings.data(kind), "format": "json"})
        return sql.with_options(statement, {**options, "events.num": settings.events})
    if options.get("connector") == "datagen":
        query.rows += settings.events
        query.is_repeatable = False
    return statement
