-- Count by ten seconds over 100 000 keys; rows made by 'datagen' on both sides, a hundred a millisecond.
CREATE TABLE results (k BIGINT, num BIGINT, starttime TIMESTAMP(3), endtime TIMESTAMP(3)) WITH ('connector' = 'blackhole');

INSERT INTO results
SELECT k, COUNT(*) AS num, window_start, window_end
FROM TABLE(TUMBLE(TABLE keyed, DESCRIPTOR(ts), INTERVAL '10' SECOND))
GROUP BY k, window_start, window_end;
