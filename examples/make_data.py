#!/usr/bin/env python3
"""Makes the input data of the examples, always the same.

    python3 examples/make_data.py           writes examples/*/data/
    python3 examples/make_data.py --check   compares what is there with what would be written

The records of a file come in the order in which they arrived, which is not quite the order in which they
happened: most are a second or two behind, a few are minutes late. Only the standard library is used.
"""

import csv
import gzip
import io
import json
import math
import random
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
START = datetime(2026, 3, 2, 9, 0, 0, tzinfo=timezone.utc)


class Dice:
    """Random choices made from `random()` alone, whose values are the same in every version of Python."""

    def __init__(self, seed):
        self.source = random.Random(seed)

    def unit(self):
        return self.source.random()

    def below(self, limit):
        return int(self.source.random() * limit)

    def between(self, low, high):
        return low + (high - low) * self.source.random()

    def chance(self, probability):
        return self.source.random() < probability

    def pick(self, items):
        return items[self.below(len(items))]

    def weighted(self, pairs):
        mark = self.source.random() * sum(weight for _, weight in pairs)
        for item, weight in pairs:
            mark -= weight
            if mark < 0:
                return item
        return pairs[-1][0]

    def normal(self, mean, deviation):
        spread = math.sqrt(-2.0 * math.log(1.0 - self.unit()))
        return mean + deviation * spread * math.cos(2.0 * math.pi * self.unit())

    def waiting_time(self, mean):
        return -mean * math.log(1.0 - self.unit())


def sql_time(seconds):
    moment = START + timedelta(milliseconds=round(seconds * 1000))
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


def iso_time(seconds):
    return sql_time(seconds).replace(" ", "T") + "Z"


def arrival_order(dice, records, jitter, late_share, late_seconds):
    """Sorts `(event second, record)` by when each arrives: up to `jitter` seconds after it happened, and for a
    `late_share` of them `late_seconds` (low, high)."""
    arrivals = []
    for number, (second, record) in enumerate(records):
        delay = dice.between(0.0, jitter)
        if dice.chance(late_share):
            delay = dice.between(*late_seconds)
        arrivals.append((second + delay, number, record))
    arrivals.sort(key=lambda arrival: arrival[:2])
    return [record for _, _, record in arrivals]


def json_lines(records):
    return "".join(json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n" for record in records)


# --- card fraud --------------------------------------------------------------------------------------------

MERCHANTS = [
    ("Grocer", "groceries", 45, 22.0), ("Filling station", "fuel", 15, 48.0), ("Bakery", "groceries", 14, 7.5),
    ("Pharmacy", "health", 8, 18.0), ("Bookshop", "leisure", 6, 24.0), ("Electronics", "electronics", 4, 160.0),
    ("Airline", "travel", 2, 210.0), ("Streaming", "subscriptions", 6, 12.0),
]
COUNTRIES = ["DE", "FR", "NL", "ES", "IT", "PL", "AT", "BE"]
ACQUIRERS = ["north", "south", "web"]


def payment(number, second, card, amount, merchant, category, country):
    shop = {"name": merchant, "category": category, "country": country}
    record = {"payment_id": f"p{number:06d}", "ts": sql_time(second), "card": card, "amount": round(amount, 2), "merchant": shop}
    return second, record


def honest_payments(dice):
    events = []
    for card_number in range(850):
        card = f"{4000 + card_number % 37:04d}-xxxx-xxxx-{1000 + card_number:04d}"
        home = COUNTRIES[card_number % len(COUNTRIES)]
        second = dice.waiting_time(170.0)
        while second < 1200.0:
            name, category, _, usual = dice.weighted([(m, m[2]) for m in MERCHANTS])
            country = dice.pick(COUNTRIES) if dice.chance(0.02) else home
            amount = max(0.5, min(1900.0, usual * math.exp(dice.normal(0.0, 0.5))))
            events.append((second, card, amount, f"{name} {dice.below(40) + 1}", category, country))
            second += 3.0 + dice.waiting_time(170.0)
    return events


def stolen_cards(dice):
    """The frauds: many small payments, a few large ones, and one card in many countries at once."""
    events = []
    for start, card in [(131.0, "4017-xxxx-xxxx-7713"), (742.0, "4031-xxxx-xxxx-7720")]:
        for step in range(14):
            events.append((start + 4.5 * step, card, dice.between(1.0, 9.9), "Gift cards 3", "gifts", "NL"))
    for start, card in [(388.0, "4008-xxxx-xxxx-7731"), (1015.0, "4022-xxxx-xxxx-7742")]:
        for step in range(4):
            amount = dice.between(1450.0, 1990.0)
            events.append((start + 11.0 * step, card, amount, f"Electronics {step + 1}", "electronics", "DE"))
    for start, card in [(560.0, "4002-xxxx-xxxx-7755"), (903.0, "4029-xxxx-xxxx-7768")]:
        for step, country in enumerate(["BR", "VN", "ES", "ZA"]):
            events.append((start + 9.0 * step, card, dice.between(80.0, 240.0), "Airline 2", "travel", country))
    return events


def card_fraud(dice):
    events = sorted(honest_payments(dice) + stolen_cards(dice))
    by_acquirer = {name: [] for name in ACQUIRERS}
    for number, event in enumerate(events):
        acquirer = dice.weighted([("north", 42), ("south", 40), ("web", 18)])
        by_acquirer[acquirer].append(payment(number, *event))
    texts = {
        name: json_lines(arrival_order(dice, records, 3.0, 0.006, (70.0, 200.0)))
        for name, records in by_acquirer.items()
    }
    return {"north.json.gz": texts["north"], "south.json.gz": texts["south"], "web.json": texts["web"]}


# --- sensors -----------------------------------------------------------------------------------------------


def sensor_readings(dice, sensor, base, overheats_at):
    readings = []
    for second in range(599):
        celsius = base + 2.5 * math.sin(second / 95.0) + dice.normal(0.0, 0.6)
        if overheats_at is not None and overheats_at <= second < overheats_at + 170:
            celsius += 32.0 * math.sin(math.pi * (second - overheats_at) / 170.0)
        humidity = "n/a" if dice.chance(0.03) else f"{dice.normal(46.0, 4.0):.1f}"
        if not dice.chance(0.02):
            moment = second + dice.between(0.0, 0.9)
            readings.append((moment, [sensor, sql_time(moment), f"{celsius:.2f}", humidity]))
    return readings


def sensors(dice):
    plants = {
        "plant-a.csv": [("boiler-1", 61.0, 212), ("boiler-2", 58.0, None), ("pump-1", 44.0, None)],
        "plant-b.csv.gz": [("boiler-3", 63.0, None), ("pump-2", 47.0, 388), ("pump-3", 45.0, None)],
    }
    files = {}
    for name, members in plants.items():
        readings = [reading for member in members for reading in sensor_readings(dice, *member)]
        readings.sort(key=lambda reading: reading[0])
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["sensor", "ts", "celsius", "humidity"])
        writer.writerows(arrival_order(dice, readings, 1.5, 0.008, (75.0, 130.0)))
        files[name] = text.getvalue()
    return files


# --- clickstream -------------------------------------------------------------------------------------------

PRODUCTS = ["kettle", "lamp", "desk", "chair", "mug", "rug", "clock", "shelf"]
REFERRERS = [("", 50), ("https://search.example/", 30), ("https://news.example/", 12), ("https://mail.example/", 8)]


def click(second, visitor, page, referrer):
    return second, {"ts": sql_time(second), "visitor": visitor, "page": page, "referrer": referrer}


def visit(dice, visitor, second):
    """One visit: some pages, now and then the cart, and from the cart often the check-out."""
    referrer = dice.weighted(REFERRERS)
    clicks = [click(second, visitor, "/", referrer)]
    pages = [f"/product/{PRODUCTS[int(len(PRODUCTS) * dice.unit() ** 2)]}" for _ in range(1 + dice.below(6))]
    if dice.chance(0.2):
        pages.append("/cart")
        if dice.chance(0.62):
            pages += ["/checkout", "/thanks"]
    for page in pages:
        second += 4.0 + dice.waiting_time(38.0)
        clicks.append(click(second, visitor, page, ""))
    return clicks


def clickstream(dice):
    clicks = []
    for number in range(430):
        visitor = f"v{number:04d}"
        second = dice.between(0.0, 6600.0)
        clicks += visit(dice, visitor, second)
        if dice.chance(0.12):
            clicks += visit(dice, visitor, second + dice.between(1500.0, 3000.0))
    clicks.sort(key=lambda entry: entry[0])
    by_server = {"a": [], "b": []}
    for entry in clicks:
        by_server["a" if dice.chance(0.7) else "b"].append(entry)
    texts = {name: arrival_order(dice, records, 8.0, 0.0, (0.0, 0.0)) for name, records in by_server.items()}
    # A phone that was offline sends its clicks more than half an hour after they happened.
    offline = [click(2400.0 + 21.5 * n, "v9001", page, "")[1] for n, page in enumerate(["/", "/product/lamp", "/cart"])]
    texts["a"][int(len(texts["a"]) * 0.8):0] = offline
    return {"server-a.json.gz": json_lines(texts["a"]), "server-b.json": json_lines(texts["b"])}


# --- log alerts --------------------------------------------------------------------------------------------

SERVICES = [("catalog", 40), ("search", 30), ("login", 16), ("checkout", 14)]
PATHS = {"catalog": "/items", "search": "/query", "login": "/session", "checkout": "/orders"}


def status_of(dice, service, second):
    broken = 0.008
    if service == "checkout" and 214.0 <= second < 291.0:
        broken = 0.45
    if service == "search" and 505.0 <= second < 538.0:
        broken = 0.25
    if dice.chance(broken):
        return dice.weighted([(500, 50), (502, 20), (503, 30)])
    return dice.weighted([(200, 90), (204, 4), (304, 4), (404, 2)])


def log_record(dice, second, service, host):
    status = status_of(dice, service, second)
    latency = 18.0 * math.exp(dice.normal(0.0, 0.6)) * (9.0 if status >= 500 else 1.0)
    record = {
        "time": iso_time(second), "host": host, "service": service, "level": "ERROR" if status >= 500 else "INFO",
        "status": status, "latency_ms": round(latency, 1), "path": PATHS[service],
    }
    if status >= 500:
        record["message"] = dice.pick(["upstream timed out", "connection refused", "pool exhausted"])
    return second, record


def log_alerts(dice):
    by_host = {"web-1": [], "web-2": [], "web-3": []}
    second = 0.0
    while second < 720.0:
        second += dice.waiting_time(0.085)
        host = dice.weighted([("web-1", 43), ("web-2", 43), ("web-3", 14)])
        by_host[host].append(log_record(dice, second, dice.weighted(SERVICES), host))
    files = {}
    for host, records in by_host.items():
        lines = json_lines(arrival_order(dice, records, 1.2, 0.003, (25.0, 60.0))).splitlines(keepends=True)
        # What a full disk or a crash leaves in a log: a line that breaks off.
        for position in (len(lines) // 3, len(lines) * 2 // 3):
            lines.insert(position, lines[position][: len(lines[position]) // 2] + "\n")
        files[f"{host}.json" + ("" if host == "web-3" else ".gz")] = "".join(lines)
    return files


EXAMPLES = {"card-fraud": (1, card_fraud), "sensors": (2, sensors), "clickstream": (3, clickstream), "log-alerts": (4, log_alerts)}


def read_text(path):
    opened = gzip.open(path, "rt", encoding="utf-8", newline="") if path.suffix == ".gz" else open(path, encoding="utf-8", newline="")
    with opened as file:
        return file.read()


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode("utf-8")
    path.write_bytes(gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data)


def main(arguments):
    if arguments not in ([], ["--check"]):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    different = 0
    for example, (seed, make) in EXAMPLES.items():
        for name, text in make(Dice(seed)).items():
            path = HERE / example / "data" / name
            if arguments != ["--check"]:
                write_text(path, text)
            elif not path.exists() or read_text(path) != text:
                print(f"{path.relative_to(HERE.parent)} is not what make_data.py writes", file=sys.stderr)
                different += 1
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
