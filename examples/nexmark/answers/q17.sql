-- Counts and prices of an auction and day; the mean is without what is behind the point.
SELECT auction, strftime(dateTime, '%Y-%m-%d') AS day,
  count(*), count_if(price < 10000), count_if(price BETWEEN 10000 AND 999999), count_if(price >= 1000000),
  min(price), max(price), sum(price) // count(*), sum(price)
FROM bid
GROUP BY auction, day;
