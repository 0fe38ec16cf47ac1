-- Writes the bids of a Nexmark stream as JSON lines, one file a subtask, each over the whole of the event time.
CREATE TABLE generated (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING
) WITH ('connector' = 'nexmark', 'table' = 'bid', 'events.num' = '${events}');

CREATE TABLE bids (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING
) WITH ('connector' = 'filesystem', 'path' = '${data}', 'format' = 'json', 'sink.rolling-policy.file-size' = '1 tb');

INSERT INTO bids SELECT auction, bidder, price, channel, url, `dateTime`, extra FROM generated;
