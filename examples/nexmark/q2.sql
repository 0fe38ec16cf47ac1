-- q2, selection: bids on every 123rd auction.
CREATE TABLE results (auction BIGINT, price BIGINT)
WITH ('connector' = 'print');

INSERT INTO results
SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0;
