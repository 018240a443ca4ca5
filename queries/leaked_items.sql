-- The benchmark items that occur in most rows, each with the row that covers it best.
-- Reads hits/decontam.parquet; empty when nothing was scanned (python -m decontam.scan DIR --benchmarks NAMES).
SELECT
  benchmark,
  item_id,
  count(DISTINCT id) AS rows,
  round(max(coverage_item), 2) AS coverage,
  max(longest_run) AS longest_run,
  arg_max(id, coverage_item) AS best_row
FROM hits_decontam
GROUP BY benchmark, item_id
ORDER BY rows DESC, coverage DESC, benchmark, item_id
LIMIT 50
