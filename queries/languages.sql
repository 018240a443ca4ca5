-- Which languages there are, per source, and how sure the detector is.
-- Reads the columns of the stage signals. NULL: too little text to tell.
SELECT source, lang, count(*) AS rows, round(avg(lang_score), 2) AS mean_score
FROM rows
GROUP BY source, lang
ORDER BY source, rows DESC, lang
