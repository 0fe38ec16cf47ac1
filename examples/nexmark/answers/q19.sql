-- The ten highest bids of each auction. Bids of one price may stand in any order, and any of them may be the tenth.
-- equal: SELECT auction, place, price FROM results
SELECT auction, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS place, price
FROM bid
QUALIFY place <= 10;

-- within: SELECT * EXCLUDE (place) FROM results
SELECT auction, bidder, price, channel, url, dateTime, extra FROM bid;
