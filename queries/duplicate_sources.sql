-- Which source repeats which: dropped duplicates by the source of the row that was kept for them.
-- Reads hits/duplicates.parquet; empty when the dataset was not searched (python -m curation.dedup DIR).
SELECT source, kept_source, kind, count(*) AS rows, round(avg(jaccard), 2) AS mean_jaccard
FROM hits_duplicates
GROUP BY source, kept_source, kind
ORDER BY rows DESC, source, kept_source, kind
