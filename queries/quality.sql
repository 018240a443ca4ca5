-- Signs of bad answers, in percent of rows per source: refusals, cut-off or empty answers, claims to be another assistant, repetition.
-- Reads the columns of the stage signals.
SELECT
  source,
  count(*) AS rows,
  round(100 * avg(refusal::INT), 2) AS refusal,
  round(100 * avg(truncated::INT), 2) AS truncated,
  round(100 * avg(empty::INT), 2) AS empty,
  round(100 * avg(self_id::INT), 2) AS self_id,
  round(100 * avg(as_an_ai::INT), 2) AS as_an_ai,
  round(100 * avg((repetition > 0.3)::INT), 2) AS repetitive
FROM rows
GROUP BY source
ORDER BY source
