-- Prompts that several rows answer: how many different answers, from which sources.
SELECT
  min(id) AS example,
  count(*) AS rows,
  count(DISTINCT hash) AS answers,
  list_sort(list_distinct(list(source))) AS sources
FROM rows
GROUP BY prompt_hash
HAVING count(*) > 1
ORDER BY rows DESC, example
LIMIT 50
