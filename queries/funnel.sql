-- How many rows went in, and what became of them, per source: in = rejected + dropped + out - copies.
-- From the manifest, so it is instant at any size. The reasons one by one: drop_reasons.
SELECT
  source,
  sum(rows) FILTER (step = 'in')::BIGINT AS "in",
  coalesce(sum(rows) FILTER (step = 'rejected'), 0)::BIGINT AS rejected,
  coalesce(sum(rows) FILTER (step NOT IN ('in', 'rejected', 'copies', 'out')), 0)::BIGINT AS dropped,
  coalesce(sum(rows) FILTER (step = 'copies'), 0)::BIGINT AS copies,
  sum(rows) FILTER (step = 'out')::BIGINT AS out
FROM funnel
GROUP BY source
ORDER BY source
