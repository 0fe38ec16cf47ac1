-- Bids within limits of price: time of day, and how many letters c there are.
SELECT auction, bidder, price * CAST(0.908 AS DECIMAL(4, 3)) AS euros,
  CASE
    WHEN hour(dateTime) BETWEEN 8 AND 18 THEN 'dayTime'
    WHEN hour(dateTime) IN (7, 19) THEN 'otherTime'
    ELSE 'nightTime'
  END,
  dateTime, extra, len(list_filter(string_split(extra, ''), lambda letter: letter = 'c'))
FROM bid
WHERE euros > 1000000 AND euros < 50000000;
