-- Windows are on the clock, so only the bids of a user over all of them are known; no window stands there twice.
-- equal: SELECT bidder, sum(bid_count) FROM results GROUP BY bidder
SELECT bidder, count(*) FROM bid GROUP BY bidder;

-- equal: SELECT DISTINCT epoch_ms(starttime) % 10000, epoch_ms(endtime) - epoch_ms(starttime), bid_count > 0 FROM results
SELECT 0, 10000, true;

-- equal: SELECT bidder, starttime FROM results
SELECT DISTINCT bidder, starttime FROM results;
