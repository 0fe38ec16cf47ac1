CREATE TABLE keyed (
  n BIGINT, k BIGINT,
  ts AS TO_TIMESTAMP_LTZ(n / 100, 3),
  WATERMARK FOR ts AS ts - INTERVAL '1' SECOND
) WITH (
  'connector' = 'datagen', 'rows-per-second' = '1000000000',
  'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '${last}',
  'fields.k.min' = '0', 'fields.k.max' = '99999'
);
