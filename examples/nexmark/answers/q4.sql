-- The mean of the winning prices of each category, without what is behind the point.
WITH won AS (
  SELECT auction.id, any_value(auction.category) AS category, max(bid.price) AS price
  FROM auction JOIN bid ON bid.auction = auction.id AND bid.dateTime BETWEEN auction.dateTime AND auction.expires
  GROUP BY auction.id
)
SELECT category, sum(price) // count(*) FROM won GROUP BY category;
