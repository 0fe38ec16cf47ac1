-- Counts of bids, users and auctions of a day, in all and by level of price.
WITH levels AS (
  SELECT *, CASE WHEN price < 10000 THEN 1 WHEN price < 1000000 THEN 2 ELSE 3 END AS level FROM bid
)
SELECT strftime(dateTime, '%Y-%m-%d') AS day,
  count(*), count_if(level = 1), count_if(level = 2), count_if(level = 3),
  count(DISTINCT bidder), count(DISTINCT CASE level WHEN 1 THEN bidder END),
  count(DISTINCT CASE level WHEN 2 THEN bidder END), count(DISTINCT CASE level WHEN 3 THEN bidder END),
  count(DISTINCT auction), count(DISTINCT CASE level WHEN 1 THEN auction END),
  count(DISTINCT CASE level WHEN 2 THEN auction END), count(DISTINCT CASE level WHEN 3 THEN auction END)
FROM levels
GROUP BY day;
