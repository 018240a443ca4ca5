-- Prompts with several different answers: how many, from which sources. Repeated copies of one row do not count.
SELECT
  min(id) AS example,
  count(*) AS rows,
  count(DISTINCT hash) AS answers,
  list_sort(list_distinct(list(source))) AS sources
FROM rows
GROUP BY prompt_hash
HAVING count(DISTINCT hash) > 1
ORDER BY answers DESC, rows DESC, example
LIMIT 50
