-- The file that q13 looks things up in: ten thousand keys, each with a value.
SET 'parallelism.default' = '1';

CREATE TABLE numbers (n BIGINT) WITH (
  'connector' = 'datagen', 'number-of-rows' = '10000',
  'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '9999'
);

CREATE TABLE side_input_file (key BIGINT, `value` STRING)
WITH ('connector' = 'filesystem', 'path' = 'nexmark/side_input', 'format' = 'csv');

INSERT INTO side_input_file SELECT n, CONCAT('value ', CAST(n AS STRING)) FROM numbers;
