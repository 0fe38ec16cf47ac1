-- For each auction with a winning bid: the mean price of its seller's last eleven auctions up to it, in the order of the
-- winning bids. Where two of a seller's auctions were won at the same time their order is open, so his means are too.
CREATE TEMP VIEW won AS
SELECT auction.id, auction.seller, bid.price, bid.dateTime
FROM auction JOIN bid ON bid.auction = auction.id
WHERE bid.dateTime BETWEEN auction.dateTime AND auction.expires
QUALIFY row_number() OVER (PARTITION BY auction.id ORDER BY bid.price DESC, bid.dateTime) = 1;

CREATE TEMP VIEW tied AS
SELECT DISTINCT seller FROM won GROUP BY seller, dateTime HAVING count(*) > 1;

-- What is sure of them still: a mean lies between the lowest and the highest price of the seller.
CREATE TEMP VIEW bounds AS
SELECT seller, min(price) AS lowest, max(price) AS highest FROM won GROUP BY seller;

-- equal: SELECT seller FROM results
SELECT seller FROM won;

-- equal: SELECT * FROM results WHERE seller NOT IN (FROM tied)
SELECT seller, sum(price) OVER last // count(*) OVER last
FROM won
WHERE seller NOT IN (FROM tied)
WINDOW last AS (PARTITION BY seller ORDER BY dateTime ROWS 10 PRECEDING);

-- equal: SELECT seller FROM results JOIN bounds USING (seller) WHERE avg_price NOT BETWEEN lowest AND highest
SELECT seller FROM won WHERE false;
