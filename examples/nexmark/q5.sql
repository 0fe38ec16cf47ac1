-- q5, hot items: which auctions had the most bids in the last ten seconds, every two seconds.
CREATE TABLE results (auction BIGINT, num BIGINT)
WITH ('connector' = 'print');

INSERT INTO results
SELECT counts.auction, counts.num
FROM (
  SELECT auction, COUNT(*) AS num, window_start AS starttime, window_end AS endtime
  FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
  GROUP BY auction, window_start, window_end
) AS counts
JOIN (
  SELECT MAX(num) AS most, starttime, endtime
  FROM (
    SELECT auction, COUNT(*) AS num, window_start AS starttime, window_end AS endtime
    FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
    GROUP BY auction, window_start, window_end
  ) AS again
  GROUP BY starttime, endtime
) AS best
ON counts.starttime = best.starttime AND counts.endtime = best.endtime AND counts.num >= best.most;
