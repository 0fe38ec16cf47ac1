-- Statistics of a hundred keys over ten seconds, every hundredth of a second, so that each window has a thousand slices; beside hop1.
CREATE TABLE results (k BIGINT, num BIGINT, total BIGINT, most BIGINT, starttime TIMESTAMP(3), endtime TIMESTAMP(3))
WITH ('connector' = 'blackhole');

INSERT INTO results
SELECT MOD(k, 100) AS k, COUNT(*) AS num, SUM(n) AS total, MAX(n) AS most, window_start, window_end
FROM TABLE(HOP(TABLE keyed, DESCRIPTOR(ts), INTERVAL '0.01' SECOND, INTERVAL '10' SECOND))
GROUP BY MOD(k, 100), window_start, window_end;
