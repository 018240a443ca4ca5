-- How many rows and items of each benchmark share text, and how much of an item a row covers at most.
-- Reads hits/decontam.parquet; empty when nothing was scanned (python -m decontam.scan DIR --benchmarks NAMES).
SELECT
  benchmark,
  count(DISTINCT id) AS rows,
  count(DISTINCT item_id) AS items,
  round(avg(coverage_item), 2) AS mean_coverage,
  round(max(coverage_item), 2) AS most,
  max(longest_run) AS longest_run
FROM hits_decontam
GROUP BY benchmark
ORDER BY rows DESC, benchmark
