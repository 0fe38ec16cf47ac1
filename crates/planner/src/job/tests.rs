//! Tests of whole files of SQL: the plans that they give and the mistakes that are found in them.

use arrow::datatypes::{DataType, TimeUnit};
use mainstem_connectors::Delivery;
use mainstem_plan::operator::{SLICE_COLUMNS, WindowKind};

use mainstem_core::graph::Exchange;
use mainstem_plan::operator::OperatorKind;

use super::*;
use crate::explain;

mod aggregates;
mod bad_records;
mod changelogs;
mod errors;
mod hints;
mod joins;
mod like;
mod lineage;
mod order;
mod patterns;
mod table_options;
mod time_joins;

const TABLES: &str = include_str!("tests/tables.sql");

fn planned(sql: &str) -> JobPlan {
    let sql = format!("{TABLES}{sql}");
    plan(&sql).unwrap_or_else(|error| panic!("{}", error.render(&sql)))
}

/// The operators of the plan; without state, guarantees and what every plan has alike.
fn operators(sql: &str) -> String {
    let text = explain(&planned(sql), 4).replace(", parallelism 4", "");
    let skipped = ["state: ", "late rows: counted", "event time: "];
    let lines = text.lines().skip(1).take_while(|line| *line != "guarantees");
    let lines = lines.map(|line| line.strip_prefix("  ").unwrap_or(line));
    lines.filter(|line| !skipped.iter().any(|skip| line.trim_start().starts_with(skip))).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn check(sql: &str, expected: &str) {
    let expected: Vec<&str> =
        expected.lines().skip(1).map(|line| line.strip_prefix("        ").unwrap_or(line)).collect();
    assert_eq!(operators(sql), expected.join("\n").trim_end(), "{sql}");
}

#[test]
fn explain_shows_the_whole_job() {
    let sql = "SET parallelism.default = 2;
        INSERT INTO out_files SELECT auction, MAX(price) FROM bid WHERE price > 100 GROUP BY auction, TUMBLE(`dateTime`, INTERVAL '10' SECOND)";
    let expected = "\
operators
  [0] source bid, parallelism 2
      reads: bid by filesystem, columns auction, price, dateTime
      columns: auction, price, dateTime
      event time: dateTime, watermark dateTime - INTERVAL '4 secs', a split is never idle
      state: position and watermark of each split, for the life of the job
  [1] filter, parallelism 2
      from [0] forward
      where: price > 100
      state: none
  [2] tumble partial aggregate, parallelism 2
      from [1] forward
      windows: tumble, size 10 s on dateTime
      keys: auction
      aggregates: MAX(price)
      late rows: counted and dropped
      state: none; what is aggregated is sent on before each checkpoint
  [3] tumble aggregate, parallelism 2
      from [2] hash(auction)
      adds: __window_start, __window_end, __window_time
      state: aggregates of each key and window, released when the watermark passes the window's end
  [4] project, parallelism 2
      from [3] forward
      columns: auction, `MAX(price)` AS price
      state: none
  [5] sink out_files, parallelism 2
      from [4] forward
      writes: out_files by filesystem, columns auction, price
      state: output of epochs that are not committed yet
guarantees
  [5] out_files: exactly-once
      asked for: exactly-once
";
    let shown = explain(&planned(sql), 2);
    assert!(shown.starts_with(expected), "{shown}");
    assert!(
        shown.contains("\n      source bid: can be read again\n      why: every source can be read again; "),
        "{shown}"
    );
    assert!(shown.ends_with("settings\n  parallelism.default = 2\n"), "{shown}");
}

#[test]
fn filter_and_projection_are_one_operator_and_only_needed_columns_are_read() {
    check(
        "SELECT auction, 0.908 * price AS price FROM bid WHERE MOD(auction, 123) = 0",
        "
        [0] source bid
            reads: bid by filesystem, columns auction, price, dateTime
            columns: auction, price
        [1] filter and project
            from [0] forward
            where: MOD(auction, 123) = 0
            columns: auction, 0.908 * CAST(price AS DECIMAL(20, 0)) AS price
        [2] sink select 1, parallelism 1
            from [1] to one subtask
            writes: select 1 by print, columns auction, price
        ",
    );
}

#[test]
fn a_window_table_function_and_its_aggregation_become_one() {
    let sql = "SELECT auction, COUNT(*) AS num, window_start AS starttime, window_end AS endtime
        FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
        WHERE price > 100 GROUP BY auction, window_start, window_end HAVING COUNT(*) > 3";
    check(
        sql,
        "
        [0] source bid
            reads: bid by filesystem, columns auction, price, dateTime
            columns: auction, price, dateTime
        [1] filter
            from [0] forward
            where: price > 100
        [2] hop partial aggregate
            from [1] forward
            windows: hop, slide 2 s, size 10 s on dateTime
            keys: auction
            aggregates: COUNT(1)
        [3] hop aggregate
            from [2] hash(auction)
            adds: window_start, window_end
        [4] filter and project
            from [3] forward
            where: `COUNT(1)` > 3
            columns: auction, `COUNT(1)` AS num, window_start AS starttime, window_end AS endtime
        [5] sink select 1, parallelism 1
            from [4] to one subtask
            writes: select 1 by print, columns auction, num, starttime, endtime
        ",
    );
    let plan = planned(sql);
    let OperatorKind::WindowPartial(aggregate) = &plan.graph.nodes[2].op.kind else { panic!() };
    assert_eq!(aggregate.window, WindowKind::Hop { slide_ms: 2_000, size_ms: 10_000, offset_ms: 0 });
    assert_eq!(aggregate.input_schema, plan.graph.nodes[1].op.schema);
    assert_eq!(aggregate.input_schema.field(aggregate.time).name(), "dateTime");
    let names: Vec<&str> = plan.graph.nodes[2].op.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names[..4], ["auction", SLICE_COLUMNS[0], SLICE_COLUMNS[1], SLICE_COLUMNS[2]]);
    assert_eq!(names.len(), 5, "one state column for the count");
    let last = &plan.graph.nodes[3].op.schema;
    assert_eq!(last.fields().len(), 4);
    assert_eq!(*last.field(2).data_type(), DataType::Timestamp(TimeUnit::Millisecond, None));
    assert_eq!(plan.graph.inputs(OperatorId(3)).next().unwrap().exchange, Exchange::Hash { keys: vec![0] });
}

#[test]
fn windows_are_found_below_sub_queries_that_leave_them_alone() {
    check(
        "SELECT window_start, SUM(p) AS total FROM (
            SELECT price + 1 AS p, window_start, window_end FROM TABLE(TUMBLE(
                DATA => TABLE (SELECT `dateTime` AS ts, price FROM bid), TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '1' DAY, OFFSET => INTERVAL '8' HOUR))
        ) AS t WHERE t.p > 5 GROUP BY window_start, window_end",
        "
        [0] source bid
            reads: bid by filesystem, columns price, dateTime
            columns: price, dateTime
        [1] filter and project
            from [0] forward
            where: (price + 1) > 5
            columns: price + 1 AS __column_0, dateTime AS __column_1
        [2] tumble partial aggregate
            from [1] forward
            windows: tumble, size 1 d, offset 8 h on __column_1
            aggregates: SUM(__column_0)
        [3] tumble aggregate
            from [2] to one subtask
            adds: window_start, window_end
        [4] project
            from [3] forward
            columns: window_start, `SUM(__column_0)` AS total
        [5] sink select 1, parallelism 1
            from [4] to one subtask
            writes: select 1 by print, columns window_start, total
        ",
    );
}

#[test]
fn sessions_take_their_keys_from_partition_by() {
    for data in [
        "TABLE bid PARTITION BY bidder, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND",
        "DATA => TABLE bid PARTITION BY (bidder), TIMECOL => DESCRIPTOR(`dateTime`), GAP => INTERVAL '10' SECOND",
    ] {
        let plan = planned(&format!(
            "SELECT bidder, COUNT(*) FROM TABLE(SESSION({data})) GROUP BY bidder, window_start, window_end"
        ));
        let OperatorKind::WindowPartial(aggregate) = &plan.graph.nodes[1].op.kind else { panic!("{data}") };
        assert_eq!(aggregate.window, WindowKind::Session { gap_ms: 10_000 });
        assert_eq!(aggregate.keys.len(), 1);
    }
}

#[test]
fn the_short_form_gives_a_struct_on_the_only_event_time() {
    check(
        "SELECT tumble(interval '10' second) AS w, bidder, count(*) AS n FROM bid GROUP BY w, 2",
        "
        [0] source bid
            reads: bid by filesystem, columns bidder, dateTime
            columns: bidder, dateTime
        [1] tumble partial aggregate
            from [0] forward
            windows: tumble, size 10 s on dateTime
            keys: bidder
            aggregates: COUNT(1)
        [2] tumble aggregate
            from [1] hash(bidder)
            adds: __window_start, __window_end, __window_time
        [3] project
            from [2] forward
            columns: NAMED_STRUCT('start', __window_start, 'end', __window_end) AS w, bidder, `COUNT(1)` AS n
        [4] sink select 1, parallelism 1
            from [3] to one subtask
            writes: select 1 by print, columns w, bidder, n
        ",
    );
    let schema = planned("SELECT hop(interval '2' second, interval '10' second) FROM bid GROUP BY 1")
        .graph
        .nodes
        .pop()
        .unwrap()
        .op
        .schema;
    assert_eq!(schema.field(0).name(), "hop");
    assert_eq!(mainstem_plan::sql_type_name(schema.field(0).data_type()), "ROW<start TIMESTAMP(3), end TIMESTAMP(3)>");
}

#[test]
fn grouped_window_functions_have_their_auxiliaries() {
    check(
        "SELECT TUMBLE_START(`dateTime`, INTERVAL '10' SECOND) AS s, TUMBLE_ROWTIME(`dateTime`, INTERVAL '10' SECOND) AS rt, max(price)
        FROM bid GROUP BY TUMBLE(`dateTime`, INTERVAL '10' SECOND)
        HAVING TUMBLE_END(`dateTime`, INTERVAL '10' SECOND) > TIMESTAMP '2020-01-01 00:00:00' AND max(price) > 3",
        "
        [0] source bid
            reads: bid by filesystem, columns price, dateTime
            columns: price, dateTime
        [1] tumble partial aggregate
            from [0] forward
            windows: tumble, size 10 s on dateTime
            aggregates: MAX(price)
        [2] tumble aggregate
            from [1] to one subtask
            adds: __window_start, __window_end, __window_time
        [3] filter and project
            from [2] forward
            where: (__window_end > TIMESTAMP '2020-01-01 00:00:00') AND (`MAX(price)` > 3)
            columns: __window_start AS s, __window_time AS rt, `MAX(price)` AS max(price)
        [4] sink select 1, parallelism 1
            from [3] to one subtask
            writes: select 1 by print, columns s, rt, max(price)
        ",
    );
}

#[test]
fn windows_over_windows_use_those_of_the_rows() {
    check(
        "SELECT MAX(num) AS maxn, starttime, endtime FROM (
            SELECT COUNT(*) AS num, window_start AS starttime, window_end AS endtime
            FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND)) GROUP BY auction, window_start, window_end
        ) GROUP BY starttime, endtime",
        "
        [0] source bid
            reads: bid by filesystem, columns auction, dateTime
            columns: auction, dateTime
        [1] tumble partial aggregate
            from [0] forward
            windows: tumble, size 2 s on dateTime
            keys: auction
            aggregates: COUNT(1)
        [2] tumble aggregate
            from [1] hash(auction)
            adds: window_start, window_end
        [3] project
            from [2] forward
            columns: `COUNT(1)` AS num, window_start AS starttime, window_end AS endtime
        [4] window partial aggregate
            from [3] forward
            windows: those of the rows, starttime to endtime
            aggregates: MAX(num)
        [5] window aggregate
            from [4] to one subtask
            adds: starttime, endtime
        [6] project
            from [5] forward
            columns: `MAX(num)` AS maxn, starttime, endtime
        [7] sink select 1, parallelism 1
            from [6] to one subtask
            writes: select 1 by print, columns maxn, starttime, endtime
        ",
    );
    let of_struct = operators(
        "SELECT w.start, count(*) AS n FROM (SELECT tumble(interval '1' minute) AS w, bidder FROM bid GROUP BY 1, 2) GROUP BY w",
    );
    assert!(of_struct.contains("windows: those of the rows, __window_start to __window_end"), "{of_struct}");
}

#[test]
fn windows_over_processing_time_stay_so_through_further_windows() {
    let inner = "SELECT bidder, COUNT(*) AS n, window_start, window_end
        FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(p_time), INTERVAL '10' SECOND)) GROUP BY bidder, window_start, window_end";
    let shown = operators(inner);
    assert!(shown.contains("windows: tumble, size 10 s of processing time on p_time"), "{shown}");
    let sql = format!("SELECT MAX(n) FROM ({inner}) GROUP BY window_start, window_end");
    let plan = planned(&sql);
    let by_clock = plan.graph.nodes.iter().filter_map(|node| match &node.op.kind {
        OperatorKind::WindowPartial(aggregate) | OperatorKind::WindowFinal(aggregate) => {
            Some(aggregate.processing_time)
        }
        _ => None,
    });
    assert_eq!(by_clock.collect::<Vec<_>>(), [true; 4]);
}

#[test]
fn a_window_whose_columns_are_computed_with_is_assigned_first() {
    let shown = operators(
        "SELECT channel, max(window_end) AS m FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) GROUP BY channel, window_start, window_end",
    );
    assert!(
        shown.contains("[1] tumble windows\n    from [0] forward\n    windows: tumble, size 10 s on dateTime"),
        "{shown}"
    );
    assert!(shown.contains("windows: those of the rows, window_start to window_end"), "{shown}");
    let filtered = operators(
        "SELECT count(*) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) WHERE window_start > TIMESTAMP '2020-01-01 00:00:00' GROUP BY window_start, window_end",
    );
    assert!(filtered.contains("[1] tumble windows"), "{filtered}");
}

#[test]
fn cascades_go_by_window_time() {
    let shown = operators(
        "CREATE VIEW five AS SELECT auction, count(*) AS n, window_time AS rt
            FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '5' MINUTE)) GROUP BY auction, window_start, window_end, window_time;
        SELECT window_start, sum(n) FROM TABLE(CUMULATE(TABLE five, DESCRIPTOR(rt), INTERVAL '10' MINUTE, INTERVAL '1' HOUR)) GROUP BY window_start, window_end",
    );
    assert!(shown.contains("windows: cumulate, step 10 min, size 1 h on rt"), "{shown}");
}

#[test]
fn event_time_passes_unions_of_event_times() {
    let shown = operators(
        "SELECT count(*) FROM (SELECT `dateTime`, price FROM bid UNION ALL SELECT ts, event_type FROM events) GROUP BY session(interval '10' second)",
    );
    assert!(shown.contains("[2] union\n    from [0] forward\n    from [1] forward"), "{shown}");
    assert!(shown.contains("windows: session, gap 10 s on dateTime"), "{shown}");
}

#[test]
fn inserts_share_what_they_have_in_common() {
    let sql = "CREATE VIEW counts AS SELECT auction, COUNT(*) AS n, window_start AS s, window_end AS e
            FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end;
        EXECUTE STATEMENT SET BEGIN
            INSERT INTO out_counts SELECT * FROM counts;
            INSERT INTO out_counts (auction, n) SELECT auction, n FROM counts WHERE n > 3;
            INSERT INTO out_files SELECT auction, price FROM bid;
        END;";
    check(
        sql,
        "
        [0] source bid
            reads: bid by filesystem, columns auction, price, dateTime
            columns: auction, price, dateTime
        [1] project
            from [0] forward
            columns: auction, dateTime
        [2] tumble partial aggregate
            from [1] forward
            windows: tumble, size 10 s on dateTime
            keys: auction
            aggregates: COUNT(1)
        [3] tumble aggregate
            from [2] hash(auction)
            adds: window_start, window_end
        [4] project
            from [3] forward
            columns: auction, `COUNT(1)` AS n, window_start AS w_start, window_end AS w_end
        [5] sink out_counts
            from [4] forward
            writes: out_counts by blackhole, columns auction, n, w_start, w_end
        [6] filter and project
            from [3] forward
            where: `COUNT(1)` > 3
            columns: auction, `COUNT(1)` AS n, NULL AS w_start, NULL AS w_end
        [7] sink out_counts
            from [6] forward
            writes: out_counts by blackhole, columns auction, n, w_start, w_end
        [8] project
            from [0] forward
            columns: auction, price
        [9] sink out_files
            from [8] forward
            writes: out_files by filesystem, columns auction, price
        ",
    );
    let sinks: Vec<u32> = planned(sql).sinks.iter().map(|sink| sink.operator.0).collect();
    assert_eq!(sinks, [5, 7, 9]);
}

#[test]
fn a_union_of_equal_streams_has_different_inputs() {
    let plan = planned("SELECT * FROM plain UNION ALL SELECT * FROM plain");
    let inputs: Vec<u32> = plan.graph.inputs(OperatorId(2)).map(|edge| edge.from.0).collect();
    assert_eq!(inputs, [0, 1]);
    assert_eq!(plan.graph.nodes[1].name, "copy");
}

#[test]
fn nested_fields_arrays_and_maps_are_read() {
    check(
        "CREATE VIEW b AS SELECT bid.auction, bid.price, ts FROM events WHERE event_type = 2;
        SELECT auction, PRICE FROM B;
        SELECT tags[1] AS tag, labels['x'] AS x, events.person.name FROM events",
        "
        [0] source events
            reads: events by filesystem, columns event_type, person, auction, bid, tags, labels
            columns: event_type, person, bid, tags, labels
        [1] filter and project
            from [0] forward
            where: event_type = 2
            columns: bid.auction AS auction, bid.price AS price
        [2] sink select 1, parallelism 1
            from [1] to one subtask
            writes: select 1 by print, columns auction, price
        [3] project
            from [0] forward
            columns: ARRAY_ELEMENT(tags, 1) AS tag, labels.x AS x, person.name AS name
        [4] sink select 2, parallelism 1
            from [3] to one subtask
            writes: select 2 by print, columns tag, x, name
        ",
    );
}

#[test]
fn a_table_may_keep_together_with_others_in_event_time() {
    let with = |watermark: &str, options: &str| {
        let connector = "'connector' = 'nexmark', 'table' = 'bid', 'events.num' = '10'";
        format!(
            "CREATE TABLE b (price BIGINT, `dateTime` TIMESTAMP(3){watermark}) WITH ({connector}{options}); SELECT * FROM b"
        )
    };
    let watermark = ", WATERMARK FOR `dateTime` AS `dateTime`";
    let drift = ", 'scan.watermark.alignment.max-drift' = '1 min'";
    let group = ", 'scan.watermark.alignment.group' = 'auctions'";
    let plan = planned(&with(watermark, &format!("{drift}{group}")));
    let OperatorKind::Source(source) = &plan.graph.nodes[0].op.kind else { panic!() };
    let alignment = source.watermark.as_ref().unwrap().alignment.clone().unwrap();
    assert_eq!((alignment.group.as_deref(), alignment.max_drift_ms), (Some("auctions"), 60_000));
    let shown = explain(&plan, 1);
    assert!(shown.contains("at most 1 min ahead of the slowest of group 'auctions'"), "{shown}");
    for (sql, part) in [
        (with("", drift), "needs a table with a WATERMARK"),
        (with(watermark, group), "needs 'scan.watermark.alignment.max-drift' beside it"),
        (with(watermark, ", 'scan.watermark.alignment.max-drift' = 'far'"), "a duration such as '1 min'"),
        (
            "CREATE TABLE f (ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'filesystem', 'path' = 'f', \
             'format' = 'json', 'scan.watermark.alignment.max-drift' = '1 min'); SELECT * FROM f"
                .to_owned(),
            "read one after another",
        ),
    ] {
        let error = super::plan(&sql).unwrap_err().message;
        assert!(error.contains(part), "{sql}: {error}");
    }
}

#[test]
fn computed_columns_and_watermarks_are_evaluated_in_the_source() {
    let plan = planned(
        "SET 'table.exec.source.idle-timeout' = '30 s';
        CREATE TABLE l (x BIGINT, unused STRING, ts AS TO_TIMESTAMP_LTZ(x, 3), later AS ts + INTERVAL '1' DAY, WATERMARK FOR TS AS ts - INTERVAL '1' SECOND)
            WITH ('connector' = 'filesystem', 'path' = 'l', 'format' = 'json');
        SELECT later FROM l",
    );
    let OperatorKind::Source(source) = &plan.graph.nodes[0].op.kind else { panic!() };
    assert_eq!(source.read_columns, [0]);
    assert_eq!(source.project.len(), 1);
    assert_eq!(source.project[0].name, "later");
    assert_eq!(source.watermark.as_ref().unwrap().idle_timeout_ms, Some(30_000));
    assert_eq!(mainstem_plan::sql_type_name(plan.graph.nodes[0].op.schema.field(0).data_type()), "TIMESTAMP_LTZ(3)");
}

#[test]
fn flinks_nexmark_tables_are_planned() {
    let plan = planned(
        "CREATE TABLE datagen (
            event_type INT,
            person ROW<id BIGINT, name VARCHAR, emailAddress VARCHAR, creditCard VARCHAR, city VARCHAR, state VARCHAR,
                `dateTime` TIMESTAMP(3), extra VARCHAR>,
            auction ROW<id BIGINT, itemName VARCHAR, description VARCHAR, initialBid BIGINT, reserve BIGINT,
                `dateTime` TIMESTAMP(3), expires TIMESTAMP(3), seller BIGINT, category BIGINT, extra VARCHAR>,
            bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, url VARCHAR,
                `dateTime` TIMESTAMP(3), extra VARCHAR>,
            `dateTime` AS CASE WHEN event_type = 0 THEN person.`dateTime`
                WHEN event_type = 1 THEN auction.`dateTime` ELSE bid.`dateTime` END,
            WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
        ) WITH ('connector' = 'nexmark', 'events.num' = '1000');
        CREATE VIEW bids AS SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, `dateTime`, bid.extra
            FROM datagen WHERE event_type = 2;
        INSERT INTO out_counts SELECT auction, COUNT(*), window_start, window_end
            FROM TABLE(HOP(TABLE bids, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
            GROUP BY auction, window_start, window_end",
    );
    let names: Vec<&str> = plan.graph.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "source datagen",
            "filter and project",
            "hop partial aggregate",
            "hop aggregate",
            "project",
            "sink out_counts"
        ]
    );
    assert!(plan.sinks[0].sources[0].replayable);
}

#[test]
fn keys_are_not_null() {
    let plan = planned(
        "CREATE TABLE p (id BIGINT, s STRING, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'blackhole');
        INSERT INTO p SELECT k, s FROM plain",
    );
    let OperatorKind::Sink(sink) = &plan.graph.nodes.last().unwrap().op.kind else { panic!() };
    assert_eq!(sink.table.primary_key, ["id"]);
    assert!(!sink.table.schema.field(0).is_nullable());
}

#[test]
fn inserts_cast_as_flink_does() {
    for (query, first) in [
        ("SELECT 1, v FROM plain", "1 AS k"),
        ("SELECT event_type, bid.price FROM events", "event_type AS k"),
        ("SELECT event_type + 1, event_type FROM events", "CAST(CAST(event_type AS BIGINT) + 1 AS INT) AS k"),
        ("SELECT CAST(k AS INT), NULL FROM plain", "CAST(k AS INT) AS k"),
    ] {
        let shown = operators(&format!("INSERT INTO out_small {query}"));
        assert!(shown.contains(&format!("columns: {first}, ")), "{shown}");
        let plan = planned(&format!("INSERT INTO out_small {query}"));
        let sink = plan.graph.nodes.last().unwrap();
        let before = plan.graph.inputs(sink.id).next().unwrap().from;
        assert_eq!(plan.graph.node(before).op.schema, sink.op.schema);
    }
}

#[test]
fn bare_selects_print_a_table() {
    let plan = planned(
        "SELECT k, v FROM plain; SELECT k, k, COUNT(*) FILTER (WHERE v > 3) FROM (SELECT *, `dateTime` AS ts FROM (SELECT auction AS k, 1.5 AS v, `dateTime` FROM bid)) GROUP BY k, TUMBLE(ts, INTERVAL '1' SECOND)",
    );
    let tables: Vec<&str> = plan.sinks.iter().map(|sink| sink.table.as_str()).collect();
    assert_eq!(tables, ["select 1", "select 2"]);
    let last = plan.graph.nodes.last().unwrap();
    let OperatorKind::Sink(sink) = &last.op.kind else { panic!() };
    assert_eq!(sink.table.options["connector"], "print");
    assert_eq!(sink.table.options["print.style"], "table");
    let names: Vec<&str> = last.op.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["k", "k0", "COUNT(*) FILTER (WHERE v > 3)"]);
}

#[test]
fn late_rows_go_to_their_table() {
    let plan = planned(
        "SET 'late-rows.table' = 'out_late';
        INSERT INTO out_counts SELECT auction, COUNT(*), window_start, window_end FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end",
    );
    let late: Vec<_> = plan.graph.edges.iter().filter(|edge| edge.port == 1).collect();
    assert_eq!(late.len(), 1);
    let OperatorKind::WindowPartial(aggregate) = &plan.graph.node(late[0].from).op.kind else { panic!() };
    assert!(aggregate.late_output);
    let names: Vec<&str> =
        plan.graph.node(late[0].to).op.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["operator", "event_time", "row"]);
    assert_eq!(plan.sinks.last().unwrap().table, "out_late");
    assert!(explain(&plan, 1).contains("forward (late rows)"));
}

#[test]
fn guarantees_are_what_the_weakest_part_keeps() {
    let plan = planned("INSERT INTO out_files SELECT auction, price FROM bid; SELECT auction FROM bid");
    assert_eq!((plan.sinks[0].requested, plan.sinks[0].delivery), (Some(Delivery::ExactlyOnce), Delivery::ExactlyOnce));
    assert_eq!((plan.sinks[1].requested, plan.sinks[1].delivery), (None, Delivery::AtLeastOnce));
    assert!(plan.sinks[0].sources[0].replayable);
    assert!(!plan.explain_only);
}

#[test]
fn names_match_without_case_where_that_is_clear() {
    let plan = planned(
        "SELECT AUCTION, BID.Price, b.DATETIME FROM (SELECT * FROM BID) AS bid, bid AS b WHERE 1 = 1"
            .replace(", bid AS b", "")
            .replace("b.DATETIME", "Bid.DATETIME")
            .as_str(),
    );
    let names: Vec<String> =
        plan.graph.nodes.last().unwrap().op.schema.fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["auction", "price", "dateTime"]);
}

#[test]
fn long_chains_are_planned_and_longer_ones_refused() {
    let chain = |count: usize, term: &str, op: &str| vec![term; count].join(op);
    planned(&format!("SELECT k FROM plain WHERE {}", chain(1_900, "k + 1 > v", " AND ")));
    planned(&format!(
        "SELECT k FROM plain WHERE {}",
        (0..1_900).map(|i| format!("(k = {i} AND s = 'x{i}')")).collect::<Vec<_>>().join(" OR ")
    ));
    for (sql, expected) in [
        (chain(2_500, "k > 3", " OR "), "a chain of 'OR' has 2501 operands, at most 2000 are accepted"),
        (chain(600, "k", " + ") + " > 3", "operands, at most 500 are accepted"),
        (chain(300, "k", " + ") + " > 3", "the expression is nested deeper than 200"),
    ] {
        let error = plan(&format!("{TABLES}SELECT k FROM plain WHERE {sql}")).unwrap_err();
        assert!(error.message.contains(expected), "{error}");
        assert_eq!(error.code == ErrorCode::Limit, expected.contains("accepted"));
    }
    let unions = plan(&format!("{TABLES}{}", chain(600, "SELECT k FROM plain", " UNION ALL "))).unwrap_err();
    assert!(unions.message.contains("a UNION ALL joins 600 queries, at most 500 are accepted"), "{unions}");
    let nested =
        plan(&format!("{TABLES}{}SELECT k FROM plain{}", "SELECT k FROM (".repeat(70), ")".repeat(70))).unwrap_err();
    assert!(nested.message.contains("nested"), "{nested}");
}

#[test]
fn plans_are_the_same_each_time_and_survive_storage() {
    let sql = "SELECT auction, COUNT(DISTINCT price + 1), SUM(price + 1) FROM bid WHERE price + 1 > 3 GROUP BY auction, HOP(`dateTime`, INTERVAL '1' SECOND, INTERVAL '3' SECOND)";
    let first = planned(sql);
    assert_eq!(first, planned(sql));
    let stored = serde_json::to_string(&first).unwrap();
    assert_eq!(serde_json::from_str::<JobPlan>(&stored).unwrap(), first);
}
