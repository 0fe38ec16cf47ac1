-- q6, average selling price of a seller: over the last ten auctions and this one. OVER rows that change.
CREATE TABLE results (seller BIGINT, avg_price BIGINT)
WITH ('connector' = 'print');

INSERT INTO results
SELECT won.seller,
  AVG(won.price) OVER (PARTITION BY won.seller ORDER BY won.`dateTime` ROWS BETWEEN 10 PRECEDING AND CURRENT ROW)
FROM (
  SELECT seller, price, `dateTime`
  FROM (
    SELECT a.id, a.seller, b.price, b.`dateTime`,
      ROW_NUMBER() OVER (PARTITION BY a.id, a.seller ORDER BY b.price DESC, b.`dateTime`) AS place
    FROM auction AS a, bid AS b
    WHERE a.id = b.auction AND b.`dateTime` BETWEEN a.`dateTime` AND a.expires
  )
  WHERE place <= 1
) AS won;
