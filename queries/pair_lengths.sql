-- Preference pairs: do the chosen answers win by length? Share of pairs whose chosen answer is the longer one, per source.
-- Reads the columns of the stage signals. Near 50 is good; far above, a model learns to write more.
SELECT
  source,
  count(*) AS pairs,
  round(100 * avg((response_chars > rejected_chars)::INT), 1) AS chosen_longer,
  median(response_chars)::BIGINT AS chosen_chars,
  median(rejected_chars)::BIGINT AS rejected_chars,
  count(*) FILTER (same_answers) AS same_answers
FROM rows
WHERE kind = 'pair'
GROUP BY source
ORDER BY source
