-- Under which licences the rows stand, per source: what decides whether the set may be passed on.
SELECT coalesce(license, 'not stated') AS license, source, count(*) AS rows
FROM rows
GROUP BY ALL
ORDER BY license, rows DESC, source
