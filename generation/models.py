"""Which models there are, where they answer, and what they cost: the `models:` part of every generation config.

    models:
      - {name: tulu, model: allenai/tulu-2-7b, base_url: http://localhost:8000/v1, params: {temperature: 1.0, max_tokens: 2048}}
      - {name: judge, model: gpt-4o-2024-08-06, api_key_env: OPENAI_API_KEY}

    >>> ModelConfig(name="tulu", base_url="http://localhost:8000/v1").urls
    ('http://localhost:8000/v1',)

A key is never part of a config: a config names the environment variable that holds it (`api_key_env`).
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, field_validator

from columnar.config import Config
from columnar.errors import ConfigError

OPENAI = "https://api.openai.com/v1"


class Price(Config):
    """US dollars per million tokens."""

    input: float = 0.0
    output: float = 0.0

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Dollars for one call."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


class ModelConfig(Config):
    """One model and the servers that answer for it.

    Attributes:
        name: what the rest of the config and the rows call it.
        model: what the server calls it; the same as `name` when left out.
        base_url: one server or several replicas, asked in turn.
        revision: names the weights when the server's name does not (a checkpoint under training): part of the cache key.
        params: sent with every request (temperature, top_p, max_tokens, seed, stop, ...); `extra` goes into the body as it is.
        structured: the server obeys `response_format: json_schema`; otherwise answers are parsed strictly and repaired once.
        samples_at_once: the server obeys `n`, so that the samples of one prompt share its prefix.
        concurrency: the most calls in flight per server; the level below it is found while running.
        timeout: seconds for one attempt; `deadline`: for a call with all its retries.
        retries: attempts after the first for failures that pass (5xx, cut connections, broken replies).
        price: dollars per million tokens; left out = looked up in generation/prices.yaml.
    """

    name: str
    model: str = ""
    base_url: str | list[str] = OPENAI
    backend: Literal["server", "vllm"] = "server"
    api_key_env: str = "OPENAI_API_KEY"
    revision: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    engine: dict[str, Any] = Field(default_factory=dict)
    structured: bool = True
    samples_at_once: bool = True
    concurrency: int = 256
    timeout: float = 300.0
    deadline: float = 900.0
    retries: int = 5
    price: Price | None = None

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError("expected the NAME of an environment variable that holds the key, never the key itself")
        return value

    @field_validator("base_url")
    @classmethod
    def _no_secrets_in_urls(cls, value: str | list[str]) -> str | list[str]:
        for url in [value] if isinstance(value, str) else value:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("expected a URL such as http://localhost:8000/v1")
            if parts.username or parts.password or parts.query:
                raise ValueError("a URL with a user, a password or a query may hold a secret; put the key into an environment variable")
        if not value:
            raise ValueError("expected at least one URL")
        return value

    @property
    def served(self) -> str:
        """The model's name on the wire."""
        return self.model or self.name

    @property
    def urls(self) -> tuple[str, ...]:
        """The servers, in order."""
        return (self.base_url,) if isinstance(self.base_url, str) else tuple(self.base_url)

    @property
    def local(self) -> bool:
        """Every server is on a private machine, so that calls cost nothing unless a price is given."""
        return self.backend == "vllm" or all(_private(urlsplit(url).hostname or "") for url in self.urls)

    @property
    def rate(self) -> Price | None:
        """The price in force: the config's, the table's, nothing for local servers; None when unknown."""
        if self.price is not None:
            return self.price
        known = price_table().get(self.served)
        return known if known is not None else Price() if self.local else None

    @property
    def identity(self) -> dict[str, Any]:
        """What the answers depend on: without addresses, limits, prices and names of variables."""
        return {"name": self.name, "model": self.served, "revision": self.revision, "params": self.params, "structured": self.structured}

    def api_key(self) -> str:
        """The key from the environment; servers of one's own need none.

        Raises:
            ConfigError: the variable is not set and the server is OpenAI's.
        """
        key = os.environ.get(self.api_key_env, "")
        if not key and any(url.startswith(OPENAI) for url in self.urls):
            raise ConfigError(
                f"model {self.name}: the environment variable {self.api_key_env} is not set",
                f"export {self.api_key_env}=... or set base_url to a server of your own",
            )
        return key or "EMPTY"


def _private(host: str) -> bool:
    return bool(re.fullmatch(r"localhost|127\..*|0\.0\.0\.0|::1|10\..*|192\.168\..*|172\.(1[6-9]|2\d|3[01])\..*|[^.:]+|.*\.local", host))


@cache
def price_table() -> dict[str, Price]:
    """Prices by the model's name on the wire, from generation/prices.yaml."""
    table = yaml.safe_load((Path(__file__).parent / "prices.yaml").read_text(encoding="utf-8"))
    return {name: Price(**price) for name, price in table["dollars_per_million_tokens"].items()}


def by_name(models: list[ModelConfig]) -> dict[str, ModelConfig]:
    """Models by name.

    Raises:
        ConfigError: a name is used twice.
    """
    names = [m.name for m in models]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"models: the name {', '.join(map(repr, twice))} is used more than once", "give every model a name of its own")
    return {m.name: m for m in models}
