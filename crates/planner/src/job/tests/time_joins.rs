//! Joins whose state time releases: which operator a query gets, and what is refused.

use super::*;

const RATES: &str = "CREATE TABLE orders (id BIGINT, currency STRING, amount BIGINT, ts TIMESTAMP(3), p AS PROCTIME(), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH ('connector' = 'filesystem', 'path' = 'orders.json', 'format' = 'json');
CREATE TABLE rates (currency STRING, rate BIGINT, since TIMESTAMP(3), WATERMARK FOR since AS since, PRIMARY KEY (currency) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = 'rates', 'format' = 'json', 'source.monitor-interval' = '1 s');
CREATE TABLE names (key BIGINT, name STRING, unused STRING, upper_name AS UPPER(name)) WITH ('connector' = 'filesystem', 'path' = 'names.csv', 'format' = 'csv', 'lookup.full-cache.periodic-reload.interval' = '10 min');
";

/// The lines of the first operator of that name.
fn operator(sql: &str, name: &str) -> Vec<String> {
    let text = operators(&format!("{RATES}{sql}"));
    let mut lines = text.lines().skip_while(|line| !line.ends_with(&format!("] {name}")));
    let first = lines.next().unwrap_or_else(|| panic!("no {name} in\n{text}"));
    let own = lines.take_while(|line| line.starts_with(' ')).map(|line| line.trim().to_owned());
    std::iter::once(first[first.find(']').unwrap() + 2..].to_owned()).chain(own).collect()
}

fn refusal(sql: &str) -> String {
    let error = plan(&format!("{TABLES}{RATES}{sql}")).expect_err(sql);
    let lines = TABLES.lines().count() + RATES.lines().count();
    format!("{} {}:{} {}", error.code, error.line - u64::try_from(lines).unwrap(), error.column, error.message)
}

/// Nexmark's q7: the highest bids of each ten seconds, joined back on the bids.
const Q7: &str = "SELECT B.auction, B.price, B.bidder, B.`dateTime`, B.extra FROM bid B JOIN (SELECT MAX(price) AS maxprice, window_end AS `dateTime` FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) GROUP BY window_start, window_end) B1 ON B.price = B1.maxprice WHERE B.`dateTime` BETWEEN B1.`dateTime` - INTERVAL '10' SECOND AND B1.`dateTime`";

/// Nexmark's q5: the auctions with the most bids of each window.
const Q5: &str = "SELECT AuctionBids.auction, AuctionBids.num FROM (SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end) AS AuctionBids JOIN (SELECT max(CountBids.num) AS maxn, CountBids.starttime, CountBids.endtime FROM (SELECT count(*) AS num, window_start AS starttime, window_end AS endtime FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end) AS CountBids GROUP BY CountBids.starttime, CountBids.endtime) AS MaxBids ON AuctionBids.starttime = MaxBids.starttime AND AuctionBids.endtime = MaxBids.endtime AND AuctionBids.num >= MaxBids.maxn";

/// Nexmark's q8, over the one table of this file.
const Q8: &str = "SELECT P.id, P.name, P.starttime FROM (SELECT auction AS id, channel AS name, window_start AS starttime, window_end AS endtime FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) GROUP BY auction, channel, window_start, window_end) P JOIN (SELECT bidder AS seller, window_start AS starttime, window_end AS endtime FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) GROUP BY bidder, window_start, window_end) A ON P.id = A.seller AND P.starttime = A.starttime AND P.endtime = A.endtime";

/// Nexmark's q13: bids enriched from a side table.
const Q13: &str = "SELECT B.auction, B.bidder, B.price, B.`dateTime`, S.name FROM (SELECT *, PROCTIME() AS p_time2 FROM bid) B JOIN names FOR SYSTEM_TIME AS OF B.p_time2 AS S ON mod(B.auction, 10000) = S.key";

#[test]
fn bounds_of_time_make_an_interval_join() {
    let expected = [
        "interval join",
        "from [0] hash(price)",
        "from [4] hash(maxprice)",
        "inner: left.price = right.maxprice",
        "times: left.dateTime from right.dateTime - 10 s to right.dateTime + 0 ms",
    ];
    assert_eq!(operator(Q7, "interval join"), expected);
    let semi = "SELECT a.id FROM orders a WHERE EXISTS (SELECT 1 FROM bid b WHERE b.auction = a.id AND b.price > a.amount AND b.`dateTime` BETWEEN a.ts AND a.ts + INTERVAL '1' HOUR)";
    let lines = operator(semi, "interval join");
    assert_eq!(lines[3], "semi: left.id = right.auction");
    assert_eq!(lines[4], "condition: price > amount");
    assert_eq!(lines[5], "times: left.ts from right.dateTime - 1 h to right.dateTime + 0 ms");
    // Without keys all rows of the interval meet.
    let near = "SELECT a.id FROM orders a FULL JOIN bid b ON a.ts > b.`dateTime` AND a.ts - INTERVAL '1' SECOND <= b.`dateTime`";
    let lines = operator(near, "interval join");
    assert_eq!(lines[1..4], ["from [0] to one subtask", "from [1] to one subtask", "full: every row with every row"]);
    assert_eq!(lines[4], "times: left.ts from right.dateTime + 1 ms to right.dateTime + 1 s");
    let equal =
        operator("SELECT a.id FROM orders a JOIN bid b ON a.id = b.auction AND a.ts = b.`dateTime`", "interval join");
    assert_eq!(equal[4], "times: left.ts from right.dateTime + 0 ms to right.dateTime + 0 ms");
}

#[test]
fn event_time_is_kept_behind_a_join_that_is_bounded() {
    let sql = "SELECT a.id, COUNT(*) FROM orders a JOIN orders b ON a.id = b.id AND a.ts >= b.ts AND a.ts < b.ts + INTERVAL '1' MINUTE GROUP BY a.id, TUMBLE(a.ts, INTERVAL '1' MINUTE)";
    assert_eq!(operator(sql, "interval join")[4], "times: left.ts from right.ts + 0 ms to right.ts + 59999 ms");
    assert_eq!(operator(sql, "tumble partial aggregate")[2], "windows: tumble, size 1 min on ts");
    // WHERE says what ON does not; a window of the right side's time.
    let comma = "SELECT COUNT(*) FROM orders a, orders b WHERE a.id = b.id AND b.ts BETWEEN a.ts - INTERVAL '1' MINUTE AND a.ts GROUP BY TUMBLE(b.ts, INTERVAL '1' MINUTE)";
    assert_eq!(operator(comma, "interval join")[4], "times: left.ts from right.ts + 0 ms to right.ts + 1 min");
    let again = format!(
        "SELECT COUNT(*) FROM ({}) GROUP BY starttime, endtime",
        Q8.replace("P.starttime FROM", "P.starttime, P.endtime FROM")
    );
    assert_eq!(operator(&again, "window partial aggregate")[2], "windows: those of the rows, starttime to endtime");
    let chained = "SELECT a.id FROM (orders a JOIN orders b ON a.id = b.id AND a.ts BETWEEN b.ts AND b.ts + INTERVAL '1' MINUTE) JOIN bid c ON a.id = c.auction AND c.`dateTime` BETWEEN b.ts AND b.ts + INTERVAL '1' MINUTE";
    let text = operators(&format!("{RATES}{chained}"));
    assert_eq!(text.matches("] interval join").count(), 2, "{text}");
}

#[test]
fn bounds_that_are_not_enough_leave_a_regular_join() {
    for condition in [
        "a.id = b.id",
        "a.id = b.id AND a.ts > b.ts",
        "a.id = b.id AND a.ts BETWEEN b.ts AND b.ts + INTERVAL '1' MONTH",
        "a.id = b.id OR a.ts = b.ts",
    ] {
        let sql = format!("SELECT a.id FROM orders a JOIN orders b ON {condition}");
        assert_eq!(operator(&sql, "inner join")[0], "inner join");
    }
    // The time that may be missing is none.
    let padded = "SELECT COUNT(*) FROM orders a LEFT JOIN orders b ON a.id = b.id AND a.ts = b.ts GROUP BY TUMBLE(b.ts, INTERVAL '1' MINUTE)";
    assert!(refusal(padded).contains("event time"), "{}", refusal(padded));
    let unbounded =
        "SELECT COUNT(*) FROM orders a JOIN orders b ON a.id = b.id GROUP BY TUMBLE(b.ts, INTERVAL '1' MINUTE)";
    assert!(refusal(unbounded).contains("event time"), "{}", refusal(unbounded));
}

#[test]
fn equal_windows_make_a_window_join() {
    let expected = [
        "window join",
        "from [3] hash(auction, window_start, window_end)",
        "from [6] hash(bidder, window_start, window_end)",
        "inner: left.auction = right.bidder AND left.window_start = right.window_start AND left.window_end = right.window_end",
    ];
    assert_eq!(operator(Q8, "window join"), expected);
    let expected = [
        "window join",
        "from [2] hash(window_start, window_end)",
        "from [5] hash(starttime, endtime)",
        "inner: left.window_start = right.starttime AND left.window_end = right.endtime",
        "condition: `COUNT(1)` >= `MAX(num)`",
    ];
    assert_eq!(operator(Q5, "window join"), expected);
    let rows = "SELECT a.id FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' HOUR)) a WHERE id NOT IN (SELECT auction FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '1' HOUR)) b WHERE auction IS NOT NULL AND a.window_end = b.window_end)";
    assert_eq!(operator(rows, "window join")[0], "window join");
}

#[test]
fn a_table_as_of_a_time_is_joined_by_versions_or_looked_up() {
    let expected = [
        "lookup join",
        "from [2] forward",
        "inner: left.__key_0 = right.key",
        "looks up: names, held in memory, loaded again when older than 10 min, where an epoch ends",
    ];
    assert_eq!(operator(Q13, "lookup join"), expected);
    let event_time = "SELECT o.id, r.rate * o.amount FROM orders o LEFT JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON r.currency = o.currency AND o.amount > r.rate";
    let expected = [
        "temporal join",
        "from [1] hash(currency)",
        "from [0] hash(currency)",
        "left: left.currency = right.currency",
        "condition: rate < amount",
        "versions: as of left.ts, valid from right.since on",
    ];
    assert_eq!(operator(event_time, "temporal join"), expected);
    let newest =
        "SELECT o.id, r.rate FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.p AS r ON o.currency = r.currency";
    assert_eq!(
        operator(newest, "temporal join")[4],
        "versions: the newest, by processing time; a replay may meet others"
    );
    let windows = "SELECT COUNT(*) FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.currency = r.currency GROUP BY TUMBLE(o.ts, INTERVAL '1' HOUR)";
    assert_eq!(operator(windows, "tumble partial aggregate")[2], "windows: tumble, size 1 h on ts");
}

#[test]
fn what_a_table_as_of_a_time_cannot_do_is_said() {
    let cases = [
        (
            "SELECT o.id FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.id = r.rate",
            "sql-unsupported 1:32 ON must compare every column of the key of the table behind FOR SYSTEM_TIME AS OF (currency) by =, as it is",
        ),
        (
            "SELECT o.id FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.currency = UPPER(r.currency)",
            "sql-unsupported 1:32 ON must compare every column of the key of the table behind FOR SYSTEM_TIME AS OF (currency) by =, as it is",
        ),
        (
            "SELECT o.id FROM orders o JOIN bid FOR SYSTEM_TIME AS OF o.ts AS r ON o.id = r.auction",
            "sql-unsupported 1:32 the table behind FOR SYSTEM_TIME AS OF has no primary key that says which rows are versions of one another; declare PRIMARY KEY (...) NOT ENFORCED",
        ),
        (
            "SELECT o.id FROM orders o JOIN names FOR SYSTEM_TIME AS OF o.ts AS r ON o.id = r.key",
            "sql-unsupported 1:32 the table behind FOR SYSTEM_TIME AS OF has no event time that says from when a row is valid; declare a WATERMARK for it (a view with ROW_NUMBER() or GROUP BY has none: name the table itself, with a PRIMARY KEY), or join it as of PROCTIME()",
        ),
        (
            "SELECT o.id FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.ts + INTERVAL '1' SECOND AS r ON o.currency = r.currency",
            "sql-unsupported 1:32 FOR SYSTEM_TIME AS OF takes the event time of the left side (a column with a WATERMARK, as it is) or a PROCTIME() of it",
        ),
        (
            "SELECT o.id FROM orders o JOIN names FOR SYSTEM_TIME AS OF o.p AS r ON o.id > r.key",
            "sql-unsupported 1:32 ON must compare a column of the table that is looked up by =, as it is, with a value of the left side",
        ),
        (
            "SELECT r.upper_name FROM orders o JOIN names FOR SYSTEM_TIME AS OF o.p AS r ON o.id = r.key",
            "sql-unsupported 1:40 'upper_name' is a computed column, and the rows of 'names' are looked up as they are stored; compute it in the SELECT",
        ),
        (
            "SELECT o.n FROM (SELECT id, COUNT(*) AS n, PROCTIME() AS p FROM orders GROUP BY id) o JOIN names FOR SYSTEM_TIME AS OF o.p AS r ON o.id = r.key",
            "sql-unsupported 1:92 the left side of FOR SYSTEM_TIME AS OF needs rows that never change, and 'group aggregate' changes rows that it gave before",
        ),
    ];
    let answers: Vec<(String, &str)> = cases.iter().map(|(sql, expected)| (refusal(sql), *expected)).collect();
    let wrong: Vec<_> = answers.iter().filter(|(answer, expected)| answer != expected).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
