-- Rows made from other rows (answers, rewritings, repeated copies): from which source to which, and how many parents are here.
SELECT r.source, p.source AS parent_source, count(*) AS rows, count(DISTINCT r.parent) AS parents
FROM (SELECT id, source, unnest(parents) AS parent FROM rows) AS r
LEFT JOIN text AS p ON p.id = r.parent
GROUP BY ALL
ORDER BY rows DESC, source, parent_source
