"""Takes SQL text apart as far as the benchmark needs it: statements, the names in them, and the options of tables."""

import re

TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<text>'(?:[^']|'')*')|(?P<quoted>`[^`]*`)|(?P<end>;)|(?P<word>\w+)|(?P<other>.)""",
    re.DOTALL,
)
NAME = r"`?(\w+)`?"
# A list of tables, each perhaps with an alias.
ITEM = r"`?\w+`?(?:(?:\s+AS)?\s+\w+)?"
READ = re.compile(rf"\b(?:FROM|JOIN|TABLE)\s+(?P<tables>{ITEM}(?:\s*,\s*{ITEM})*)", re.IGNORECASE)
CREATE_TABLE = re.compile(rf"CREATE\s+(?:TEMPORARY\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?{NAME}", re.IGNORECASE)
CREATE_VIEW = re.compile(rf"CREATE\s+(?:TEMPORARY\s+)?VIEW\s+(?:IF\s+NOT\s+EXISTS\s+)?{NAME}", re.IGNORECASE)
LOOKED_UP = re.compile(rf"\bJOIN\s+{NAME}\s+FOR\s+SYSTEM_TIME\b", re.IGNORECASE)
INSERT = re.compile(rf"INSERT\s+INTO\s+{NAME}", re.IGNORECASE)
WITH = re.compile(r"\)\s*WITH\s*\((?P<options>.*)\)\s*$", re.IGNORECASE | re.DOTALL)
OPTION = re.compile(r"'((?:[^']|'')*)'\s*=\s*'((?:[^']|'')*)'")


def statements(text):
    """The statements without comments and semicolons."""
    found, statement = [], ""
    for token in TOKEN.finditer(text):
        if token.lastgroup == "end":
            found.append(statement.strip())
            statement = ""
        elif token.lastgroup != "comment":
            statement += token.group()
    return [statement for statement in [*found, statement.strip()] if statement]


def read(statement):
    """The tables and views that a statement may read; perhaps other names too."""
    lists = (match.group("tables") for match in READ.finditer(statement))
    return {re.match(NAME, item.strip()).group(1) for tables in lists for item in tables.split(",")}


def created(statement):
    """The table or view that a statement creates."""
    match = CREATE_TABLE.match(statement) or CREATE_VIEW.match(statement)
    return match.group(1) if match else None


def looked_up(statement):
    """The tables in which a statement looks rows up."""
    return set(LOOKED_UP.findall(statement))


def inserted(statement):
    """The table that a statement writes to."""
    match = INSERT.match(statement)
    return match.group(1) if match else None


def options(statement):
    """The options of a CREATE TABLE statement; None where it has none."""
    match = WITH.search(statement) if CREATE_TABLE.match(statement) else None
    return dict(OPTION.findall(match.group("options"))) if match else None


def with_options(statement, values):
    """The same CREATE TABLE statement with these options alone."""
    text = ", ".join(f"'{key}' = '{value}'" for key, value in values.items())
    return statement[: WITH.search(statement).start()] + f") WITH ({text})"
