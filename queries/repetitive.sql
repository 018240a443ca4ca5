-- The rows whose answers repeat themselves most: loops of a model that generated them.
-- Reads the columns of the stage signals.
SELECT id, source, round(repetition, 2) AS repetition, n_tokens, preview
FROM rows
WHERE repetition > 0.3
ORDER BY repetition DESC, id
LIMIT 25
