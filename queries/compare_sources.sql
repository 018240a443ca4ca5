-- Two datasets side by side: rows per source in each (python -m columnar.query A B -f compare_sources).
SELECT
  source,
  count(*) FILTER (side = 'a') AS a,
  count(*) FILTER (side = 'b') AS b,
  count(*) FILTER (side = 'b') - count(*) FILTER (side = 'a') AS difference
FROM (SELECT source, 'a' AS side FROM a.text UNION ALL SELECT source, 'b' FROM b.text)
GROUP BY source
ORDER BY abs(difference) DESC, source
