-- Twenty rows to read, drawn evenly over the sources; change the 17 for others.
-- Reads the columns of the stage signals.
SELECT source, id, n_tokens, preview
FROM rows
QUALIFY row_number() OVER (PARTITION BY source ORDER BY md5(id || '17')) <= greatest(1, 20 // (SELECT count(DISTINCT source) FROM rows))
ORDER BY source, id
