-- The highest bid of each auction while it was open, the earliest of equal ones. Of bids with one price at one time any
-- may have won.
CREATE TEMP VIEW winners AS
SELECT auction.*, bid.auction, bid.bidder, bid.price, bid.dateTime AS bid_dateTime, bid.extra AS bid_extra
FROM auction JOIN bid ON bid.auction = auction.id
WHERE bid.dateTime BETWEEN auction.dateTime AND auction.expires
QUALIFY rank() OVER (PARTITION BY auction.id ORDER BY bid.price DESC, bid.dateTime) = 1;

-- equal: SELECT id, auction, price, bid_dateTime FROM results
SELECT DISTINCT id, auction, price, bid_dateTime FROM winners;

-- within: SELECT * FROM results
SELECT * FROM winners;
