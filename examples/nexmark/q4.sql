-- q4, average price of a category: the mean of the winning bids of its auctions. Aggregates over an aggregate
-- that changes.
CREATE TABLE results (id BIGINT, final BIGINT, PRIMARY KEY (id) NOT ENFORCED)
WITH ('connector' = 'print');

INSERT INTO results
SELECT won.category, AVG(won.final)
FROM (
  SELECT MAX(b.price) AS final, a.category
  FROM auction AS a, bid AS b
  WHERE a.id = b.auction AND b.`dateTime` BETWEEN a.`dateTime` AND a.expires
  GROUP BY a.id, a.category
) AS won
GROUP BY won.category;
