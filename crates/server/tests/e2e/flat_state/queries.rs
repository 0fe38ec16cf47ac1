//! The queries of [`super`]: each with an operator of another kind.

/// Event time, or the clock of windows over processing time, releases their state, or there are only so many keys.
pub(super) const BY_EVENT_TIME: &[(&str, &str)] = &[
    (
        "tumble",
        "SELECT k, window_end, COUNT(*), MAX(n) FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '0.2' SECOND)) \
         GROUP BY k, window_start, window_end",
    ),
    (
        "hop",
        "SELECT k, window_end, COUNT(DISTINCT n) \
         FROM TABLE(HOP(TABLE a, DESCRIPTOR(ts), INTERVAL '0.1' SECOND, INTERVAL '0.3' SECOND)) \
         GROUP BY k, window_start, window_end",
    ),
    (
        "cumulate",
        "SELECT k, window_end, SUM(n) \
         FROM TABLE(CUMULATE(TABLE a, DESCRIPTOR(ts), INTERVAL '0.1' SECOND, INTERVAL '0.3' SECOND)) \
         GROUP BY k, window_start, window_end",
    ),
    (
        "session",
        "SELECT k, window_end, COUNT(*) \
         FROM TABLE(SESSION(TABLE a PARTITION BY k, DESCRIPTOR(ts), INTERVAL '0.02' SECOND)) \
         GROUP BY k, window_start, window_end",
    ),
    (
        "session of keys that do not come again",
        "SELECT g, SESSION_END(ts, INTERVAL '0.1' SECOND), COUNT(*) FROM (SELECT id / 50 AS g, ts FROM a) \
         GROUP BY g, SESSION(ts, INTERVAL '0.1' SECOND)",
    ),
    (
        "window of windows",
        "SELECT window_end, MAX(c) FROM (SELECT k, window_start, window_end, COUNT(*) AS c \
         FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '0.2' SECOND)) GROUP BY k, window_start, window_end) \
         GROUP BY window_start, window_end",
    ),
    (
        "window join",
        "SELECT x.id, y.n FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '0.2' SECOND)) x FULL \
         JOIN TABLE(TUMBLE(TABLE b, DESCRIPTOR(ts), INTERVAL '0.2' SECOND)) y ON x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end",
    ),
    (
        "interval join",
        "SELECT a.id, b.n FROM a \
         JOIN b ON a.k = b.k AND a.ts BETWEEN b.ts - INTERVAL '0.2' SECOND AND b.ts + INTERVAL '0.1' SECOND",
    ),
    (
        "interval full join",
        "SELECT a.id, b.n FROM a FULL \
         JOIN b ON a.id = b.id AND a.ts BETWEEN b.ts - INTERVAL '0.2' SECOND AND b.ts + INTERVAL '0.1' SECOND",
    ),
    (
        "interval anti join",
        "SELECT a.id FROM a WHERE NOT EXISTS (SELECT 1 FROM b \
         WHERE a.id = b.id AND a.ts BETWEEN b.ts - INTERVAL '0.2' SECOND AND b.ts)",
    ),
    ("temporal join", "SELECT a.id, v.n FROM a JOIN b FOR SYSTEM_TIME AS OF a.ts AS v ON a.k = v.k"),
    (
        "over a range",
        "SELECT id, SUM(n) OVER (PARTITION BY id / 50 ORDER BY ts RANGE BETWEEN INTERVAL '0.2' SECOND PRECEDING AND CURRENT ROW) AS s FROM a",
    ),
    (
        "over rows",
        "SELECT id, SUM(n) OVER (PARTITION BY k ORDER BY ts ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS s, LAG(n) OVER (PARTITION BY k ORDER BY ts) AS l FROM a",
    ),
    (
        "over a range of processing time",
        "SELECT id, SUM(n) OVER (PARTITION BY id / 50 ORDER BY p RANGE BETWEEN INTERVAL '0.2' SECOND PRECEDING AND CURRENT ROW) AS s FROM a",
    ),
    ("sort by event time", "SELECT id, ts FROM a ORDER BY ts"),
    (
        "top n of windows",
        "SELECT * \
         FROM (SELECT id, k, window_start, window_end, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, k ORDER BY n DESC) AS rn \
         FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '0.2' SECOND))) WHERE rn <= 3",
    ),
    (
        "last row of windows",
        "SELECT id, k \
         FROM (SELECT id, k, window_start, window_end, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, k ORDER BY ts DESC) AS rn \
         FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '0.2' SECOND))) WHERE rn = 1",
    ),
    (
        "dense rank within windows",
        "SELECT id, k, rn \
         FROM (SELECT id, k, window_start, window_end, DENSE_RANK() OVER (PARTITION BY window_start, window_end ORDER BY n DESC) AS rn \
         FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '0.2' SECOND))) WHERE rn <= 2",
    ),
    (
        "tumble by processing time",
        "SELECT k, window_end, COUNT(*) FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(p), INTERVAL '0.2' SECOND)) \
         GROUP BY k, window_start, window_end",
    ),
    (
        "session by processing time",
        "SELECT g, SESSION_END(p, INTERVAL '0.2' SECOND), COUNT(*) FROM (SELECT id / 50 AS g, p FROM a) \
         GROUP BY g, SESSION(p, INTERVAL '0.2' SECOND)",
    ),
    (
        "top n of keys that come again",
        "SELECT id, k FROM (SELECT id, k, ROW_NUMBER() OVER (PARTITION BY k ORDER BY id DESC) AS rn FROM a) \
         WHERE rn <= 2",
    ),
    (
        "last row of keys that come again",
        "SELECT id, k FROM (SELECT id, k, ROW_NUMBER() OVER (PARTITION BY k ORDER BY ts DESC) AS rn FROM a) \
         WHERE rn = 1",
    ),
    (
        "first of the results of a window",
        "SELECT k, c \
         FROM (SELECT k, c, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY c DESC) AS rn \
         FROM (SELECT k, window_start, window_end, COUNT(*) AS c \
         FROM TABLE(HOP(TABLE a, DESCRIPTOR(ts), INTERVAL '0.1' SECOND, INTERVAL '0.2' SECOND)) \
         GROUP BY k, window_start, window_end)) WHERE rn <= 1",
    ),
    (
        "join of the results of windows",
        "SELECT x.k, x.c, y.c FROM (SELECT k, window_start, window_end, COUNT(*) AS c \
         FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '0.2' SECOND)) \
         GROUP BY k, window_start, window_end) x JOIN (SELECT k, window_start, window_end, COUNT(*) AS c \
         FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(ts), INTERVAL '0.2' SECOND)) \
         GROUP BY k, window_start, window_end) y ON x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end",
    ),
];

/// Only their time to live releases their state.
pub(super) const BY_TIME_TO_LIVE: &[(&str, &str)] = &[
    ("group aggregate", "SELECT id / 5 AS g, COUNT(*), MAX(n), COUNT(DISTINCT n) FROM a GROUP BY id / 5"),
    (
        "aggregate of an aggregate",
        "SELECT c, COUNT(*), MAX(g) FROM (SELECT id / 5 AS g, id / 50 AS h, COUNT(*) AS c FROM a \
         GROUP BY id / 5, id / 50) GROUP BY c, h",
    ),
    ("distinct", "SELECT DISTINCT id / 5 AS g FROM a"),
    ("inner join", "SELECT a.id, b.n FROM a JOIN b ON a.id = b.id"),
    ("full join", "SELECT a.id, b.n FROM a FULL JOIN b ON a.id = b.id + 7"),
    ("semi join", "SELECT a.id FROM a WHERE a.id IN (SELECT id FROM b)"),
    ("anti join", "SELECT a.id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE a.id = b.id)"),
    ("not in", "SELECT a.id FROM a WHERE a.id NOT IN (SELECT id FROM b)"),
    (
        "join of updates",
        "SELECT a.id, x.c FROM a JOIN (SELECT id / 5 AS g, COUNT(*) AS c FROM b GROUP BY id / 5) x ON a.id = x.g",
    ),
    (
        "top n",
        "SELECT id, rn FROM (SELECT id, ROW_NUMBER() OVER (PARTITION BY id / 50 ORDER BY n DESC) AS rn FROM a) \
         WHERE rn <= 3",
    ),
    (
        "top n of results that change",
        "SELECT g, rn FROM (SELECT g, ROW_NUMBER() OVER (PARTITION BY h ORDER BY c DESC) AS rn \
         FROM (SELECT id / 5 AS g, id / 50 AS h, COUNT(*) AS c FROM a GROUP BY id / 5, id / 50)) WHERE rn <= 3",
    ),
    (
        "first row by arrival",
        "SELECT id, g \
         FROM (SELECT id, id / 5 AS g, ROW_NUMBER() OVER (PARTITION BY id / 5 ORDER BY p) AS rn FROM a) \
         WHERE rn = 1",
    ),
    (
        "last row by arrival",
        "SELECT id, g \
         FROM (SELECT id, id / 5 AS g, ROW_NUMBER() OVER (PARTITION BY id / 5 ORDER BY p DESC) AS rn FROM a) \
         WHERE rn = 1",
    ),
    (
        "over rows",
        "SELECT id, SUM(n) OVER (PARTITION BY id / 5 ORDER BY ts ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS s FROM a",
    ),
    (
        "over rows by processing time",
        "SELECT id, SUM(n) OVER (PARTITION BY id / 5 ORDER BY p ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS s FROM a",
    ),
    ("over all rows before", "SELECT id, SUM(n) OVER (PARTITION BY id / 5 ORDER BY ts) AS s FROM a"),
    ("over an order that changes", "SELECT id, SUM(n) OVER (PARTITION BY id / 50 ORDER BY n) AS s FROM a"),
    ("intersect", "SELECT id FROM a INTERSECT SELECT id FROM b"),
    ("except all", "SELECT id FROM a EXCEPT ALL SELECT id + 100 FROM b"),
];

/// Hints release their state.
pub(super) const BY_HINT: &[(&str, &str)] = &[
    (
        "inner join by hint",
        "SELECT /*+ STATE_TTL('x' = '300 ms', 'b' = '300ms') */ x.id, b.n FROM a AS x JOIN b ON x.id = b.id",
    ),
    (
        "aggregate by hint",
        "SELECT /*+ STATE_TTL('a' = '300 ms') */ id / 5 AS g, COUNT(*), MAX(n) FROM a GROUP BY id / 5",
    ),
    (
        "top n by hint",
        "SELECT id, rn FROM (SELECT /*+ STATE_TTL('a' = '300 ms') */ id, \
         ROW_NUMBER() OVER (PARTITION BY id / 50 ORDER BY n DESC) AS rn FROM a) WHERE rn <= 3",
    ),
];
