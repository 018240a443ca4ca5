"""An OpenAI-compatible server, spoken to through openai's AsyncOpenAI and its aiohttp transport.

Comes in: the JSON body of one chat completion. Goes out: the server's reply as bytes, or a CallError that says what to do about it.

    server = Server("http://localhost:8000/v1", key="EMPTY")
    raw = await server.send({"model": "tulu", "messages": [...]}, timeout=60)

Two choices are for speed, measured on 2,000 answers of 120 words with 256 in flight. The transport is aiohttp's (the SDK's own pool does
431 calls/s, a classic httpx pool 99). And AsyncOpenAI gives the address, the headers and the connections once, but is not asked to build
every request (0.7 ms of CPU a call instead of 1.0, and 1.4 with its typed replies). Retries are ours (asking.py), never the SDK's.
"""

from __future__ import annotations

import asyncio
import email.utils
import time
from typing import Any

import httpx2
import msgspec
import openai

from generation.wire import CallError

_encode = msgspec.json.Encoder().encode


class Server:
    """One server. `http_client` replaces the transport (tests give a mock)."""

    def __init__(self, url: str, key: str, key_env: str = "", http_client: httpx2.AsyncClient | None = None) -> None:
        self.url, self._key, self._key_env = url, key, key_env
        self._http = http_client or openai.DefaultAioHttpClient()
        self._client = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, http_client=self._http)
        self._chat = httpx2.URL(f"{str(self._client.base_url).rstrip('/')}/chat/completions")
        given = {**self._client.default_headers, **self._client.auth_headers}  # unset ones are markers, not texts
        self._headers = {k: v for k, v in given.items() if isinstance(v, str) and not k.startswith("X-Stainless")}
        self._limits = httpx2.Timeout(None, connect=10.0)  # the time of a whole call is limited in `send`

    async def send(self, body: dict[str, Any], timeout: float) -> bytes:
        """One attempt at one chat completion.

        Raises:
            CallError: no answer; its kind says why.
        """
        try:
            content = _encode(body)
        except UnicodeEncodeError as error:
            raise CallError("invalid", f"the text cannot be sent as UTF-8 ({error.reason})") from None
        try:
            async with asyncio.timeout(timeout):
                response = await self._http.post(self._chat, content=content, headers=self._headers, timeout=self._limits)
        except TimeoutError:
            raise CallError("timeout", f"no reply within {timeout:.0f} s") from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:  # aiohttp's refused connection comes as a timeout
            raise CallError("unreachable", self._clean(str(error))) from None
        except httpx2.HTTPError as error:
            raise CallError("transient", self._clean(str(error)) or f"the connection was cut ({type(error).__name__})") from None
        if response.is_success:
            return response.content
        raise self._status(response, str(body.get("model")))

    def _status(self, response: httpx2.Response, model: str) -> CallError:
        status, (code, message) = response.status_code, _error(response)
        said = self._clean(message)
        text = f"HTTP {status}: {said}"
        if status == 429 and code == "insufficient_quota":
            return CallError("fatal", f"{self.url}: the account's quota is used up ({said})", hint="the replies so far are in the cache")
        if status in (429, 503, 529):
            return CallError("overload", text, retry_after(response.headers))
        if status in (408, 409, 425) or status >= 500:
            return CallError("transient", text, retry_after(response.headers))
        if status in (401, 403):
            known = f"set the environment variable {self._key_env} to a key this server knows" if self._key_env else None
            return CallError("fatal", f"{self.url}: the server does not accept the key (HTTP {status}: {said})", hint=known)
        if status == 404:
            return CallError("fatal", f"{self.url}: no model {model!r} there, or not an OpenAI-compatible server ({text})")
        if code in ("content_filter", "content_policy_violation") or "content_policy" in said or "content management policy" in said:
            return CallError("refused", text)
        return CallError("invalid", text)

    def _clean(self, text: str) -> str:
        """A server's words without the key, should it repeat it, and not endless."""
        text = text.replace(self._key, "***") if len(self._key) > 5 and self._key != "EMPTY" else text
        return text if len(text) <= 500 else text[:500] + "…"

    async def models(self) -> list[str]:
        """The models this server has; empty when it does not tell."""
        try:
            return [model.id for model in (await self._client.models.list(timeout=10)).data]
        except Exception:  # only used to make an error message more helpful
            return []

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _error(response: httpx2.Response) -> tuple[str, str]:
    """The code and the message of an error, as OpenAI (`error: {...}`) or others say it; the plain text of anything else."""
    try:
        said = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", response.text
    said = said.get("error", said) if isinstance(said, dict) else said
    if isinstance(said, dict):
        return str(said.get("code") or ""), str(said.get("message") or said.get("detail") or said)
    return "", str(said)


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds from Retry-After (a number or a date) or retry-after-ms; None without one."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name)
        if not text:
            continue
        try:
            return max(0.0, float(text) * scale)
        except ValueError:
            when = email.utils.parsedate_tz(text)
            if when is not None:
                return max(0.0, email.utils.mktime_tz(when) - time.time())
    return None
