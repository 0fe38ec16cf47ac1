#!/usr/bin/env python3
"""Compares the files that an example has written with the rows that it must give, as multisets.

    python3 examples/check_output.py EXAMPLE OUT_DIR      for instance: card-fraud out/card-fraud

Exit code 0 when every row is there exactly once and nothing else, 1 when not, 2 for a wrong call.
"""

import csv
import gzip
import json
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path

from expected import EXAMPLES, milliseconds

SHOWN_MAX = 5


def output_files(directory):
    """The published files: hidden ones, and those in hidden directories, are not output yet."""
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return [path for path in paths if not any(part.startswith((".", "_")) for part in path.relative_to(directory).parts)]


def raw_rows(path, form):
    opened = gzip.open(path, "rt", encoding="utf-8", newline="") if path.suffix == ".gz" else open(path, encoding="utf-8", newline="")
    with opened as file:
        if form == "csv":
            yield from csv.DictReader(file)
        else:
            for line in file:
                yield json.loads(line, parse_float=Decimal)


def typed(value, kind):
    """A value as it stands in a file, in the form in which `expected.py` gives it."""
    if value is None or (kind not in ("text", "decimal") and value == ""):
        return None
    if kind == "text":
        return str(value)
    if kind == "time":
        return milliseconds(str(value))
    if kind == "integer":
        return int(value)
    return Decimal(str(value))


def agrees(found, wanted, kind):
    if found is None or wanted is None:
        return found is wanted
    if kind == "double":
        return float(found) == wanted
    if kind.startswith("places-"):
        # The query has rounded: the value before rounding is at most half a step away.
        step = 10.0 ** -int(kind.removeprefix("places-"))
        return abs(float(found) - wanted) <= step / 2 + 1e-9
    return found == wanted


def exact_part(row, kinds):
    """The values of a row that can be compared for equality, as a key to sort and pair rows by."""
    return tuple("" if v is None else str(v) for v, kind in zip(row, kinds) if kind in ("text", "time", "integer"))


def differences(found, wanted, kinds):
    """Rows that are there and should not be, and rows that should be there and are not."""
    missing = {}
    for row in wanted:
        missing.setdefault(exact_part(row, kinds), []).append(row)
    unexpected = []
    for row in found:
        candidates = missing.get(exact_part(row, kinds), [])
        match = next((c for c in candidates if all(map(agrees, row, c, kinds))), None)
        if match is None:
            unexpected.append(row)
        else:
            candidates.remove(match)
    return unexpected, [row for rows in missing.values() for row in rows]


def check(table, directory):
    """Prints what is wrong with one table and says whether it is right."""
    names, kinds = [name for name, _ in table.columns], [kind for _, kind in table.columns]
    found = []
    for path in output_files(directory):
        try:
            found += [tuple(typed(row[name], kind) for name, kind in table.columns) for row in raw_rows(path, table.form)]
        except (KeyError, ValueError, InvalidOperation, TypeError) as error:
            print(f"{path}: not readable as {table.form} with the columns {', '.join(names)}: {error!r}")
            return False
    unexpected, missing = differences(found, table.rows, kinds)
    for what, rows in (("unexpected", unexpected), ("missing", missing)):
        for row in rows[:SHOWN_MAX]:
            print(f"{table.directory}: {what}: {dict(zip(names, map(str, row)))}")
    verdict = "as expected" if not unexpected and not missing else f"{len(unexpected)} unexpected, {len(missing)} missing"
    print(f"{table.directory}: {len(found)} rows, {verdict}")
    return not unexpected and not missing


def main(arguments):
    if len(arguments) != 2 or arguments[0] not in EXAMPLES:
        print(f"{__doc__.strip()}\n\nEXAMPLE is one of {', '.join(EXAMPLES)}.", file=sys.stderr)
        return 2
    tables = EXAMPLES[arguments[0]]()
    return 0 if all([check(table, Path(arguments[1]) / table.directory) for table in tables]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
