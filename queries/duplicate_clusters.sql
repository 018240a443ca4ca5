-- The rows that most duplicates were found for, with the farthest one: templates and boilerplate.
-- Reads hits/duplicates.parquet; empty when the dataset was not searched (python -m curation.dedup DIR).
SELECT
  kept_id,
  any_value(kept_source) AS kept_source,
  count(*) AS duplicates,
  count(DISTINCT source) AS sources,
  round(min(jaccard), 2) AS least_jaccard,
  arg_min(id, jaccard) AS farthest
FROM hits_duplicates
GROUP BY kept_id
ORDER BY duplicates DESC, kept_id
LIMIT 25
