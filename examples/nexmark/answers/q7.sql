-- The bids that reached the highest price of a stretch of ten seconds, within it or at its end.
WITH best AS (
  SELECT epoch_ms(dateTime) // 10000 AS stretch, max(price) AS price FROM bid GROUP BY stretch
)
SELECT bid.auction, bid.bidder, bid.price, bid.dateTime, bid.extra
FROM bid JOIN best
ON bid.price = best.price AND epoch_ms(bid.dateTime) BETWEEN best.stretch * 10000 AND best.stretch * 10000 + 10000;
