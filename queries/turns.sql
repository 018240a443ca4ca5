-- How long conversations are: rows by number of turns, per source.
-- Reads the columns of the stage signals.
SELECT source, n_turns, count(*) AS rows, round(100 * count(*) / sum(count(*)) OVER (PARTITION BY source), 1) AS percent
FROM rows
GROUP BY source, n_turns
ORDER BY source, n_turns
