#!/usr/bin/env python3
"""What the examples must give, worked out without Mainstem.

    python3 examples/expected.py EXAMPLE        prints the rows of each output table

Reads the same files and follows the same rule for late records: before each record of a file, the watermark is
the greatest `time - delay` of the records before it in that file, and the record is late for a window when the
window's last millisecond is at or below the watermark (for a session: when its own time is). `check_output.py` compares
these rows with written files.
"""

import csv
import gzip
import json
import sys
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
HERE = Path(__file__).resolve().parent
SECOND = 1000
MINUTE = 60 * SECOND


def milliseconds(text):
    """A time such as `2026-03-02 09:00:00.123` or `2026-03-02T09:00:00Z`, since 1970."""
    moment = datetime.fromisoformat(text.rstrip("Z")).replace(tzinfo=timezone.utc)
    return (moment - EPOCH) // timedelta(milliseconds=1)


def shown(ms):
    moment = EPOCH + timedelta(milliseconds=ms - ms % 1000)
    return moment.strftime("%Y-%m-%d %H:%M:%S") + (f".{ms % 1000:03d}" if ms % 1000 else "")


# --- input -------------------------------------------------------------------------------------------------


def lines_of(path):
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
    with opened as file:
        yield from (line.rstrip("\n") for line in file)


def json_records(path):
    """The objects of a file; lines that are not whole are left out."""
    for line in lines_of(path):
        try:
            yield json.loads(line, parse_float=Decimal)
        except json.JSONDecodeError:
            continue


def csv_records(path):
    return csv.DictReader(lines_of(path))


def files(example, reader):
    return [reader(path) for path in sorted((HERE / example / "data").iterdir())]


# --- windows -----------------------------------------------------------------------------------------------


def tumble(size):
    return hop(size, size)


def hop(slide, size):
    def windows(time):
        last = time - time % slide
        return [(start, start + size) for start in range(last, time - size, -slide)]

    return windows


def in_windows(splits, time_of, delay, windows):
    """Each record once for each window that it is in time for, and the late ones with the watermark they
    missed: `[(window, record)], [(time, watermark)]`."""
    counted, late = [], []
    for records in splits:
        watermark = None
        for record in records:
            time = time_of(record)
            open_windows = [w for w in windows(time) if watermark is None or w[1] - 1 > watermark]
            counted += [(window, record) for window in open_windows]
            if not open_windows:
                late.append((time, watermark))
            watermark = time - delay if watermark is None else max(watermark, time - delay)
    return counted, late


def grouped(counted, key_of):
    groups = defaultdict(list)
    for window, record in counted:
        groups[(key_of(record), window)].append(record)
    return sorted(groups.items())


def sessions(splits, time_of, key_of, delay, gap):
    """Sessions of each key: `[((key, (start, end)), records)]`. A session has no end until it has ended, so here a
    record is late when its own time is at or below the watermark."""
    counted, _ = in_windows(splits, time_of, delay, lambda time: [(time, time + 1)])
    by_key = defaultdict(list)
    for (time, _), record in counted:
        by_key[key_of(record)].append((time, record))
    found = []
    for key, entries in sorted(by_key.items()):
        entries.sort(key=lambda entry: entry[0])
        current = []
        for time, record in entries:
            if current and time - current[-1][0] > gap:
                found.append(session_of(key, current, gap))
                current = []
            current.append((time, record))
        found.append(session_of(key, current, gap))
    return found


def session_of(key, entries, gap):
    return (key, (entries[0][0], entries[-1][0] + gap)), [record for _, record in entries]


# --- the four examples -------------------------------------------------------------------------------------


class Table:
    """An output table: where it lies below the example's output directory, its columns and its rows.

    The type of a column is `text`, `integer`, `decimal`, `time` (milliseconds), `double`, or `places-N`: a
    double that the query rounds to N places, of which the row here holds the value before rounding."""

    def __init__(self, directory, form, columns, rows):
        self.directory, self.form, self.columns, self.rows = directory, form, columns, rows


def card_fraud():
    splits = files("card-fraud", json_records)
    counted, _ = in_windows(splits, lambda r: milliseconds(r["ts"]), 5 * SECOND, hop(20 * SECOND, MINUTE))
    rows = []
    for (card, (start, end)), records in grouped(counted, lambda r: r["card"]):
        total = sum((Decimal(r["amount"]) for r in records), Decimal(0))
        countries = len({r["merchant"]["country"] for r in records})
        if len(records) >= 6 or total > 5000 or countries >= 3:
            reason = "many countries" if countries >= 3 else "many payments" if len(records) >= 6 else "large sum"
            rows.append((card, start, end, len(records), total, countries, reason))
    columns = [
        ("card", "text"), ("window_start", "time"), ("window_end", "time"), ("payments", "integer"),
        ("total", "decimal"), ("countries", "integer"), ("reason", "text"),
    ]
    return [Table("alerts", "json", columns, rows)]


def average(values):
    values = list(values)
    return sum(values) / len(values) if values else None


def sensors():
    splits = files("sensors", csv_records)
    counted, _ = in_windows(splits, lambda r: milliseconds(r["ts"]), 3 * SECOND, tumble(MINUTE))
    minutes = []
    for (sensor, (start, _)), records in grouped(counted, lambda r: r["sensor"]):
        celsius = [float(r["celsius"]) for r in records]
        humidity = average(float(r["humidity"]) for r in records if r["humidity"] != "n/a")
        minutes.append((sensor, start, len(records), min(celsius), average(celsius), max(celsius), humidity))
    columns = [
        ("sensor", "text"), ("minute_start", "time"), ("readings", "integer"), ("min_celsius", "double"),
        ("avg_celsius", "places-2"), ("max_celsius", "double"), ("avg_humidity", "places-1"),
    ]
    hot = [(row[0], row[1], row[5]) for row in minutes if row[5] > 75]
    hot_columns = [("sensor", "text"), ("minute_start", "time"), ("max_celsius", "double")]
    return [Table("minutes", "csv", columns, minutes), Table("hot", "json", hot_columns, hot)]


def abandoned_carts():
    splits = files("clickstream", json_records)
    visits = sessions(splits, lambda r: milliseconds(r["ts"]), lambda r: r["visitor"], 15 * SECOND, 10 * MINUTE)
    rows = []
    for (visitor, (start, end)), records in visits:
        pages = [r["page"] for r in records]
        if "/cart" in pages and "/thanks" not in pages:
            products = len({page for page in pages if page.startswith("/product/")})
            rows.append((visitor, start, end, len(pages), products, max(r["referrer"] for r in records)))
    columns = [
        ("visitor", "text"), ("visit_start", "time"), ("visit_end", "time"), ("pages", "integer"),
        ("products", "integer"), ("referrer", "text"),
    ]
    return Table("abandoned-carts", "json", columns, rows)


def traffic():
    splits = files("clickstream", json_records)
    counted, _ = in_windows(splits, lambda r: milliseconds(r["ts"]), 15 * SECOND, tumble(10 * MINUTE))
    views = defaultdict(list)
    for (_, window), records in grouped(counted, lambda r: r["page"]):
        views[window].append(len(records))
    rows = [(start, end, sum(v), len(v), max(v)) for (start, end), v in sorted(views.items())]
    columns = [
        ("window_start", "time"), ("window_end", "time"), ("page_views", "integer"), ("pages", "integer"),
        ("busiest_page", "integer"),
    ]
    return Table("traffic", "csv", columns, rows)


def clickstream():
    return [abandoned_carts(), traffic()]


def log_alerts():
    splits = files("log-alerts", json_records)
    counted, late = in_windows(splits, lambda r: milliseconds(r["time"]), 2 * SECOND, tumble(10 * SECOND))
    rows = []
    for (service, (start, end)), records in grouped(counted, lambda r: r["service"]):
        errors = sum(r["status"] >= 500 for r in records)
        if errors * 10 > len(records) and len(records) >= 10:
            slowest = max(float(r["latency_ms"]) for r in records)
            rows.append((service, start, end, len(records), errors, errors * 100.0 / len(records), slowest))
    columns = [
        ("service", "text"), ("window_start", "time"), ("window_end", "time"), ("requests", "integer"),
        ("errors", "integer"), ("error_percent", "places-1"), ("slowest_ms", "double"),
    ]
    # How a late row is shown in the column `row` is not compared.
    late_columns = [("event_time", "time"), ("watermark", "time")]
    return [Table("alerts", "json", columns, rows), Table("late", "json", late_columns, late)]


EXAMPLES = {"card-fraud": card_fraud, "sensors": sensors, "clickstream": clickstream, "log-alerts": log_alerts}


def main(arguments):
    if len(arguments) != 1 or arguments[0] not in EXAMPLES:
        print(f"{__doc__.strip()}\n\nEXAMPLE is one of {', '.join(EXAMPLES)}.", file=sys.stderr)
        return 2
    for table in EXAMPLES[arguments[0]]():
        print(f"{table.directory}: {len(table.rows)} rows")
        print("  " + " | ".join(name for name, _ in table.columns))
        for row in table.rows:
            values = [shown(v) if kind == "time" else "" if v is None else str(v) for v, (_, kind) in zip(row, table.columns)]
            print("  " + " | ".join(values))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
