-- What is in it: rows, tokens, their shares and typical lengths, per source.
-- Reads the columns of the stage signals.
SELECT
  source,
  count(*) AS rows,
  round(100 * count(*) / sum(count(*)) OVER (), 1) AS percent_of_rows,
  sum(n_tokens)::BIGINT AS tokens,
  round(100 * sum(n_tokens) / sum(sum(n_tokens)) OVER (), 1) AS percent_of_tokens,
  round(avg(n_turns), 1) AS turns,
  median(n_tokens)::BIGINT AS median_tokens,
  max(n_tokens) AS longest
FROM rows
GROUP BY source
ORDER BY tokens DESC, source
