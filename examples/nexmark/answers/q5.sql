-- The auctions with the most bids of each ten seconds, which begin every two seconds. A bid is in five of them.
WITH counted AS (
  SELECT auction, epoch_ms(dateTime) // 2000 - back AS slot, count(*) AS num
  FROM bid, range(5) AS backwards(back)
  GROUP BY ALL
)
SELECT auction, num FROM counted QUALIFY num = max(num) OVER (PARTITION BY slot);
