-- Which service fails more than a tenth of its requests, by ten seconds? Requests that were logged too late to
-- count go to a table of their own instead of vanishing.

SET 'late-rows.table' = 'late_requests';

CREATE TABLE requests (
  `time`     TIMESTAMP_LTZ(3),
  service    STRING,
  status     INT,
  latency_ms DOUBLE,
  WATERMARK FOR `time` AS `time` - INTERVAL '2' SECOND
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/log-alerts/data',
  'format' = 'json',
  'json.timestamp-format.standard' = 'ISO-8601',
  -- Some lines break off in the middle; they are dropped and counted.
  'json.ignore-parse-errors' = 'true'
);

CREATE TABLE alerts (
  service       STRING,
  window_start  TIMESTAMP(3),
  window_end    TIMESTAMP(3),
  requests      BIGINT,
  errors        BIGINT,
  error_percent DOUBLE,
  slowest_ms    DOUBLE
) WITH (
  'connector' = 'filesystem',
  'path' = 'out/log-alerts/alerts',
  'format' = 'json',
  'delivery' = 'exactly-once'
);

CREATE TABLE late_requests (
  event_time  TIMESTAMP(3),
  `watermark` TIMESTAMP(3),
  `row`       STRING
) WITH (
  'connector' = 'filesystem',
  'path' = 'out/log-alerts/late',
  'format' = 'json',
  'delivery' = 'exactly-once'
);

INSERT INTO alerts
SELECT
  service, window_start, window_end, requests, errors,
  ROUND(CAST(errors AS DOUBLE) * 100 / requests, 1) AS error_percent,
  slowest_ms
FROM (
  SELECT
    service, window_start, window_end,
    COUNT(*) AS requests,
    COUNT(*) FILTER (WHERE status >= 500) AS errors,
    MAX(latency_ms) AS slowest_ms
  FROM TABLE(TUMBLE(TABLE requests, DESCRIPTOR(`time`), INTERVAL '10' SECOND))
  GROUP BY service, window_start, window_end
) AS counts
WHERE errors * 10 > requests AND requests >= 10;
