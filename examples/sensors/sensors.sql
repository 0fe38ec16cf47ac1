-- What did each sensor measure, minute by minute, and which one runs hot?

CREATE TABLE readings (
  sensor   STRING,
  ts       TIMESTAMP(3),
  celsius  DOUBLE,
  humidity DOUBLE,
  WATERMARK FOR ts AS ts - INTERVAL '3' SECOND
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/sensors/data',
  'format' = 'csv',
  'csv.header' = 'true',
  'csv.null-literal' = 'n/a'
);

CREATE TABLE minutes (
  sensor       STRING,
  minute_start TIMESTAMP(3),
  readings     BIGINT,
  min_celsius  DOUBLE,
  avg_celsius  DOUBLE,
  max_celsius  DOUBLE,
  avg_humidity DOUBLE
) WITH (
  'connector' = 'filesystem',
  'path' = 'out/sensors/minutes',
  'format' = 'csv',
  'csv.header' = 'true',
  'delivery' = 'exactly-once'
);

CREATE TABLE hot (
  sensor       STRING,
  minute_start TIMESTAMP(3),
  max_celsius  DOUBLE
) WITH (
  'connector' = 'filesystem',
  'path' = 'out/sensors/hot',
  'format' = 'json',
  'delivery' = 'exactly-once'
);

-- The short form of a window: it takes the table's event time and gives a struct with `start` and `end`.
CREATE VIEW per_minute AS
SELECT
  sensor,
  tumble(INTERVAL '1' MINUTE) AS w,
  COUNT(*) AS readings,
  MIN(celsius) AS min_celsius,
  ROUND(AVG(celsius), 2) AS avg_celsius,
  MAX(celsius) AS max_celsius,
  ROUND(AVG(humidity), 1) AS avg_humidity
FROM readings
GROUP BY sensor, w;

INSERT INTO minutes
SELECT sensor, w.`start`, readings, min_celsius, avg_celsius, max_celsius, avg_humidity FROM per_minute;

INSERT INTO hot
SELECT sensor, w.`start`, max_celsius FROM per_minute WHERE max_celsius > 75;

SELECT sensor, w.`start` AS minute_start, max_celsius FROM per_minute WHERE max_celsius > 75;
