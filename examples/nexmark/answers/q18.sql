-- The newest bid of each user on each auction; any of those at the same time.
-- equal: SELECT auction, bidder, dateTime FROM results
SELECT auction, bidder, max(dateTime) FROM bid GROUP BY auction, bidder;

-- within: SELECT * FROM results
SELECT auction, bidder, price, channel, url, dateTime, extra FROM bid;
