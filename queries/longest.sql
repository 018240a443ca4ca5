-- The longest rows of each source: often a pasted log, an encoded file or a broken record.
-- Reads the columns of the stage signals.
SELECT source, id, n_tokens, n_turns, preview
FROM rows
QUALIFY row_number() OVER (PARTITION BY source ORDER BY n_tokens DESC, id) <= 3
ORDER BY source, n_tokens DESC, id
