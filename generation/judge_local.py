"""Judges that are programs: a reward model (transformers) and the verifiers. No server, no price, a batch of rows at a time.

    judge_locally([JudgeConfig(mode="verifier")], rows, cache)      # one list of Judgements per row

A reward model's scores are kept in the cache of replies under the text they belong to, so that a killed run does not compute them
twice; verifiers are quick and are run again.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

from columnar.errors import InputError
from generation.cache import Cache
from generation.judge import JudgeConfig, Judgement
from generation.material import bare
from generation.wire import key_of


def judge_locally(judges: list[JudgeConfig], rows: list[dict[str, Any]], cache: Cache) -> list[list[Judgement]]:
    """What each local judge says of each row's candidates."""
    out: list[list[Judgement]] = [[] for _ in rows]
    for config in judges:
        if config.mode == "verifier":
            for row, found in zip(rows, out, strict=True):
                found += _verified(config, row)
        elif config.mode == "reward":
            for found, more in zip(out, _rewarded(config, rows, cache), strict=True):
                found += more
    return out


def _verified(config: JudgeConfig, row: dict[str, Any]) -> list[Judgement]:
    from generation.verifiers.dispatch import verify

    meta = json.loads(row["meta"]) if row.get("meta") else {}
    if not meta.get("verifier"):
        return []
    task = {"prompt": row["prompt"], "verifier": meta["verifier"], "ground_truth": meta.get("ground_truth")}
    out = []
    for i, candidate in enumerate(row["candidates"]):
        found = verify(task, candidate["content"])
        broken = math.isnan(found.score)
        out.append(
            Judgement(
                config.called,
                "verifier",
                str(meta["verifier"]),
                config.called,
                0,
                i,
                None,
                1,
                None if broken else float(found.score),
                None if broken else "pass" if found.passed else "fail",
                found.reason,
                "failed" if broken else "ok",
                found.reason if broken else "",
                False,
                "",
            )
        )
    return out


def _rewarded(config: JudgeConfig, rows: list[dict[str, Any]], cache: Cache) -> list[list[Judgement]]:
    texts = [[*map(bare, row["prompt"]), {"role": "assistant", "content": c["content"]}] for row in rows for c in row["candidates"]]
    weights = _weights_of(config.model)
    keys = [key_of({"reward": config.model, "messages": text}, 0, weights) for text in texts]
    known = {key: float(json.loads(hit.raw)["score"]) for key in keys if (hit := cache.get(key, None))}
    missing = list(dict.fromkeys(i for i, key in enumerate(keys) if key not in known))
    for start in range(0, len(missing), config.batch):
        part = missing[start : start + config.batch]
        for i, score in zip(part, reward_scores(config.model, [texts[i] for i in part]), strict=True):
            known[keys[i]] = score
            cache.put(keys[i], None, config.model, "reward", "ok", 0, 0, 0.0, json.dumps({"score": score}))
    out, at = [], 0
    for row in rows:
        scores = [known[key] for key in keys[at : at + len(row["candidates"])]]
        at += len(scores)
        out.append(
            [
                Judgement(config.called, "reward", config.model, config.called, 0, i, None, 1, s, None, "", "ok", "", False, "")
                for i, s in enumerate(scores)
            ]
        )
    return out


def reward_scores(path: str, conversations: list[list[dict[str, Any]]]) -> list[float]:
    """A reward model's logit for each conversation.

    Raises:
        InputError: there is no sequence-classification model with one label at `path`.
    """
    import torch

    model, tokenizer = _load(path)
    if tokenizer.chat_template:
        texts = [tokenizer.apply_chat_template(c, tokenize=False) for c in conversations]
    else:
        texts = ["\n\n".join(f"{m['role']}: {m['content']}" for m in c) for c in conversations]
    encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt", add_special_tokens=not tokenizer.chat_template)
    with torch.no_grad():
        logits = model(**{k: v.to(model.device) for k, v in encoded.items() if k != "token_type_ids"}).logits
    return [float(v) for v in logits[:, 0].float().cpu()]


@lru_cache(maxsize=2)
def _load(path: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForSequenceClassification.from_pretrained(path).to("cuda" if torch.cuda.is_available() else "cpu").eval()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a reward model that transformers can load ({error})") from error
    if model.config.num_labels != 1:
        raise InputError(f"{path}: a reward model has one label, this one has {model.config.num_labels}")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def _weights_of(path: str) -> str:
    """Tells one set of weights at a path from the next: names, sizes and times of the files (a name on a hub: the name itself)."""
    files = sorted(p for p in Path(path).glob("*") if p.suffix in (".safetensors", ".bin", ".json")) if Path(path).is_dir() else []
    return json.dumps([path, [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]])
