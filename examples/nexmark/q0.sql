-- q0, pass through: what it costs to move every bid from a source to a sink.
CREATE TABLE results (auction BIGINT, bidder BIGINT, price BIGINT, `dateTime` TIMESTAMP(3), extra STRING)
WITH ('connector' = 'print');

INSERT INTO results
SELECT auction, bidder, price, `dateTime`, extra FROM bid;
