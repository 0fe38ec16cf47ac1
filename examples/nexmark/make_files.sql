-- Writes the generator's events to JSON files, in the order in which they happened. See files.sql.
SET 'parallelism.default' = '1';

CREATE TABLE person_file (
  id BIGINT, name STRING, emailAddress STRING, creditCard STRING, city STRING, state STRING,
  `dateTime` TIMESTAMP(3), extra STRING
) WITH ('connector' = 'filesystem', 'path' = 'nexmark/person', 'format' = 'json');

CREATE TABLE auction_file (
  id BIGINT, itemName STRING, description STRING, initialBid BIGINT, reserve BIGINT,
  `dateTime` TIMESTAMP(3), expires TIMESTAMP(3), seller BIGINT, category BIGINT, extra STRING
) WITH ('connector' = 'filesystem', 'path' = 'nexmark/auction', 'format' = 'json');

CREATE TABLE bid_file (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING,
  `dateTime` TIMESTAMP(3), extra STRING
) WITH ('connector' = 'filesystem', 'path' = 'nexmark/bid', 'format' = 'json');

INSERT INTO person_file SELECT * FROM person;
INSERT INTO auction_file SELECT * FROM auction;
INSERT INTO bid_file SELECT * FROM bid;
