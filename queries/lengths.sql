-- How long rows are: percentiles of tokens per source, to choose a maximal length by.
-- Reads the columns of the stage signals. over_2048 and over_4096: percent of rows that such a limit would cut.
SELECT
  source,
  count(*) AS rows,
  quantile_disc(n_tokens, 0.1) AS p10,
  quantile_disc(n_tokens, 0.5) AS p50,
  quantile_disc(n_tokens, 0.9) AS p90,
  quantile_disc(n_tokens, 0.99) AS p99,
  max(n_tokens) AS longest,
  round(100 * avg((n_tokens > 2048)::INT), 2) AS over_2048,
  round(100 * avg((n_tokens > 4096)::INT), 2) AS over_4096
FROM rows
GROUP BY source
ORDER BY source
