-- Input rows that failed validation, by what is wrong with them, with the first place to look.
SELECT
  coalesce(source, file) AS source,
  regexp_replace(path, '[0-9]+', 'N', 'g') AS path,
  expected,
  count(*) AS rows,
  min(file || coalesce(':' || line, '')) AS first,
  any_value(found) AS found
FROM rejects
GROUP BY ALL
ORDER BY rows DESC, source, path, expected
