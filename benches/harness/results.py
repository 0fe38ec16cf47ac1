"""Compares what two engines have written: the same rows the same number of times, in any order."""

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path


def canonical(line):
    """A JSON line without what does not matter: absent and NULL are the same, and so are 1.50 and 1.5."""
    row = json.loads(line, parse_int=number, parse_float=number)
    return json.dumps({key: row[key] for key in sorted(row) if row[key] is not None})


def number(text):
    return str(Decimal(text).normalize())


def lines(directory):
    """All rows below a directory, hidden files and directories left out."""
    found = Counter()
    for file in Path(directory).rglob("*"):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(directory).parts):
            with open(file, encoding="utf-8") as opened:
                found.update(map(canonical, opened))
    return found


def difference(one, other):
    """None when both directories hold the same rows, else how they differ; the number of rows besides."""
    ours, theirs = lines(one), lines(other)
    if ours == theirs:
        return None, ours.total()
    surplus, missing = ours - theirs, theirs - ours
    example = lambda rows: f"{rows.total()} rows" + (f" such as {next(iter(rows))}" if rows else "")
    return f"only in the first: {example(surplus)}; only in the second: {example(missing)}", ours.total()
