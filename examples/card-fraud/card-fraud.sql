-- Which cards look stolen? In every minute (a new one starts each 20 seconds): six payments or more, more than
-- 5000 in all, or payments in three countries or more.

CREATE TABLE payments (
  payment_id STRING,
  ts         TIMESTAMP(3),
  card       STRING,
  amount     DECIMAL(10, 2),
  merchant   ROW<name STRING, category STRING, country STRING>,
  -- Payments arrive in almost the order in which they were made: up to five seconds late is normal.
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/card-fraud/data',
  'format' = 'json'
);

CREATE TABLE alerts (
  card         STRING,
  window_start TIMESTAMP(3),
  window_end   TIMESTAMP(3),
  payments     BIGINT,
  total        DECIMAL(38, 2),
  countries    BIGINT,
  reason       STRING
) WITH (
  'connector' = 'filesystem',
  'path' = 'out/card-fraud/alerts',
  'format' = 'json',
  'delivery' = 'exactly-once'
);

CREATE VIEW suspicious AS
SELECT
  card, window_start, window_end,
  COUNT(*) AS payments,
  SUM(amount) AS total,
  COUNT(DISTINCT merchant.country) AS countries,
  CASE
    WHEN COUNT(DISTINCT merchant.country) >= 3 THEN 'many countries'
    WHEN COUNT(*) >= 6 THEN 'many payments'
    ELSE 'large sum'
  END AS reason
FROM TABLE(HOP(TABLE payments, DESCRIPTOR(ts), INTERVAL '20' SECOND, INTERVAL '1' MINUTE))
GROUP BY card, window_start, window_end
HAVING COUNT(*) >= 6 OR SUM(amount) > 5000 OR COUNT(DISTINCT merchant.country) >= 3;

-- Into files, each row exactly once whatever fails on the way.
INSERT INTO alerts SELECT * FROM suspicious;

-- A SELECT on its own prints its rows.
SELECT card, window_start, window_end, payments, total, countries, reason FROM suspicious;
