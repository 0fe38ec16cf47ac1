-- Bids of a user with no more than ten seconds from one to the next.
WITH marked AS (
  SELECT bidder, epoch_ms(dateTime) AS ms,
    coalesce(epoch_ms(dateTime) - lag(epoch_ms(dateTime)) OVER bids > 10000, true) AS begins
  FROM bid
  WINDOW bids AS (PARTITION BY bidder ORDER BY dateTime)
), numbered AS (
  SELECT bidder, ms, count(*) FILTER (WHERE begins) OVER (PARTITION BY bidder ORDER BY ms) AS session FROM marked
)
SELECT bidder, count(*), make_timestamp(min(ms) * 1000), make_timestamp((max(ms) + 10000) * 1000)
FROM numbered
GROUP BY bidder, session;
