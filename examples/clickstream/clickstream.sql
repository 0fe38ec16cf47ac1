-- Visits to a shop: who left with a full cart, and how busy was the site?

CREATE TABLE clicks (
  ts       TIMESTAMP(3),
  visitor  STRING,
  page     STRING,
  referrer STRING,
  WATERMARK FOR ts AS ts - INTERVAL '15' SECOND
) WITH (
  'connector' = 'filesystem',
  'path' = 'examples/clickstream/data',
  'format' = 'json'
);

CREATE TABLE abandoned_carts (
  visitor     STRING,
  visit_start TIMESTAMP(3),
  visit_end   TIMESTAMP(3),
  pages       BIGINT,
  products    BIGINT,
  referrer    STRING
) WITH (
  'connector' = 'filesystem',
  'path' = 'out/clickstream/abandoned-carts',
  'format' = 'json',
  'delivery' = 'exactly-once'
);

CREATE TABLE traffic (
  window_start  TIMESTAMP(3),
  window_end    TIMESTAMP(3),
  page_views    BIGINT,
  pages         BIGINT,
  busiest_page  BIGINT
) WITH (
  'connector' = 'filesystem',
  'path' = 'out/clickstream/traffic',
  'format' = 'csv',
  'csv.header' = 'true',
  'delivery' = 'exactly-once'
);

-- A visit is a session: it ends when its visitor has not clicked for ten minutes.
INSERT INTO abandoned_carts
SELECT
  visitor,
  window_start AS visit_start,
  window_end AS visit_end,
  COUNT(*) AS pages,
  COUNT(DISTINCT page) FILTER (WHERE page LIKE '/product/%') AS products,
  MAX(referrer) AS referrer
FROM TABLE(SESSION(TABLE clicks PARTITION BY visitor, DESCRIPTOR(ts), INTERVAL '10' MINUTE))
GROUP BY visitor, window_start, window_end
HAVING COUNT(*) FILTER (WHERE page = '/cart') > 0 AND COUNT(*) FILTER (WHERE page = '/thanks') = 0;

-- A window over the results of a window: views of each page, then over all pages.
INSERT INTO traffic
SELECT window_start, window_end, SUM(hits) AS page_views, COUNT(*) AS pages, MAX(hits) AS busiest_page
FROM (
  SELECT window_start, window_end, page, COUNT(*) AS hits
  FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '10' MINUTE))
  GROUP BY window_start, window_end, page
) AS hits_by_page
GROUP BY window_start, window_end;
