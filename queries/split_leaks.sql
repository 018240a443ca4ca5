-- Prompts that stand in the training and in the validation split: must be empty, or validation measures memory.
SELECT
  min(id) FILTER (split = 'train') AS train,
  min(id) FILTER (split = 'validation') AS validation,
  count(*) AS rows
FROM rows
GROUP BY prompt_hash
HAVING count(*) FILTER (split = 'train') > 0 AND count(*) FILTER (split = 'validation') > 0
ORDER BY rows DESC, train
