-- What people flagged, newest first, and whether the row is still in.
SELECT f.flag, f.id, f.note, f.who, f."at", CASE WHEN t.id IS NOT NULL THEN 'in' ELSE coalesce(d.reason, 'not here') END AS fate
FROM flags AS f
LEFT JOIN text AS t USING (id)
LEFT JOIN dropped AS d ON d.id = f.id
ORDER BY f."at" DESC NULLS LAST, f.id, f.flag
