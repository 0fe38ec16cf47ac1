-- Every bid, its price in euros.
SELECT auction, bidder, price * CAST(0.908 AS DECIMAL(4, 3)), dateTime, extra FROM bid;
