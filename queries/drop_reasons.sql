-- Why rows were dropped: stage and reason, per source, with one example to look at (python -m columnar.explain DIR ID).
SELECT source, stage, reason, count(*) AS rows, min(id) AS example
FROM dropped
GROUP BY source, stage, reason
ORDER BY rows DESC, source, stage, reason
