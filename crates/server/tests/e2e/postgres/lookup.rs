//! Tables of PostgreSQL that are looked up by key, without a cache, with one, and as a whole.

use super::sandbox;
use super::server::Server;

#[test]
fn rows_meet_the_rows_of_their_key() {
    let server = Server::start();
    let customers = "CREATE TABLE customers (id int, region text, name text, PRIMARY KEY (id, region));
                     INSERT INTO customers SELECT n, 'r' || (n % 2), 'name ' || n FROM generate_series(1, 500) n";
    let table = server.database("lookups", customers);
    let caches = [
        "",
        ", 'lookup.cache' = 'PARTIAL', 'lookup.partial-cache.max-rows' = '100', 'lookup.partial-cache.expire-after-write' = '1 min'",
        ", 'lookup.cache' = 'FULL'",
    ];
    for cache in caches {
        let sql = format!(
            "CREATE TABLE orders (id BIGINT, customer AS id % 600, at AS PROCTIME()) WITH ('connector' = 'datagen', 'rows-per-second' = '0',
               'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '6000');
             CREATE TABLE customers (id BIGINT, region STRING, name STRING) WITH ({table}, 'table-name' = 'customers'{cache});
             CREATE TABLE named (id BIGINT, customer BIGINT, name STRING)
               WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
             INSERT INTO named SELECT o.id, o.customer, c.name FROM orders AS o
               LEFT JOIN customers FOR SYSTEM_TIME AS OF o.at AS c ON o.customer = c.id AND c.region = 'r' || CAST(o.customer % 2 AS STRING);"
        );
        let sandbox = sandbox(&sql);
        let explained = crate::support::text(&sandbox.run_ok(&["explain", "job.sql"]).stdout);
        let how = match cache {
            "" => "asked for the keys of each batch",
            cache if cache.contains("PARTIAL") => {
                "asked for keys that are not cached (at most 100 rows, not older than 1 min)"
            }
            _ => "held in memory, loaded once",
        };
        assert!(explained.contains(how), "{how}: {explained}");
        sandbox.run_ok(&["run", "job.sql", "-p", "2"]);
        let line = |id: u64| {
            let customer = id % 600;
            let name = if (1..=500).contains(&customer) { format!("\"name {customer}\"") } else { "null".to_owned() };
            (format!("{{\"id\":{id},\"customer\":{customer},\"name\":{name}}}"), 1)
        };
        assert_eq!(sandbox.lines("out"), (1..=6000).map(line).collect(), "{cache}");
    }
}
