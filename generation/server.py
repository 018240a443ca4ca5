"""An OpenAI-compatible server, spoken to through openai's AsyncOpenAI over aiohttp.

Comes in: the JSON body of one chat completion. Goes out: the server's reply as bytes, or a CallError that says what to do about it.

    server = Server("http://localhost:8000/v1", key="EMPTY")
    raw = await server.send({"model": "tulu", "messages": [...]}, timeout=60)

Two choices are for speed, measured on 2,000 answers of 120 words with 256 in flight: the aiohttp transport (the SDK's own pool
does 431 calls/s, a classic httpx pool 99), and `AsyncOpenAI.post` with the raw response, because the typed models that
`chat.completions.create` builds double the time of a call (0.95 against 0.55 ms). Retries are ours (client.py), never the SDK's.
"""

from __future__ import annotations

import asyncio
import email.utils
import time
from typing import Any

import httpx2
import openai

from generation.wire import CallError


class Server:
    """One server. `http_client` replaces the transport (tests give a mock)."""

    def __init__(self, url: str, key: str, key_env: str = "", http_client: httpx2.AsyncClient | None = None) -> None:
        self.url, self._key, self._key_env = url, key, key_env
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=key,
            max_retries=0,
            timeout=openai.Timeout(None, connect=10.0),  # the time of a whole call is limited in `send`
            http_client=http_client or openai.DefaultAioHttpClient(),
        )

    async def send(self, body: dict[str, Any], timeout: float) -> bytes:
        """One attempt at one chat completion.

        Raises:
            CallError: no answer; its kind says why.
        """
        try:
            async with asyncio.timeout(timeout):
                response = await self._client.post("/chat/completions", body=body, cast_to=httpx2.Response)
                return response.content
        except TimeoutError:
            raise CallError("timeout", f"no reply within {timeout:.0f} s") from None
        except openai.APIStatusError as error:
            raise self._status(error, str(body.get("model"))) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):  # aiohttp's refused connection comes as a timeout
                raise CallError("unreachable", self._clean(str(cause))) from None
            if isinstance(error, openai.APITimeoutError):
                raise CallError("timeout", f"no reply within {timeout:.0f} s") from None
            raise CallError("transient", self._clean(f"{cause or error}") or "the connection was cut") from None
        except (httpx2.HTTPError, openai.OpenAIError) as error:
            raise CallError("transient", self._clean(f"{type(error).__name__}: {error}")) from None
        except UnicodeEncodeError as error:
            raise CallError("invalid", f"the text cannot be sent as UTF-8 ({error.reason})") from None

    def _status(self, error: openai.APIStatusError, model: str) -> CallError:
        status, said = error.status_code, self._clean(_message(error))
        text = f"HTTP {status}: {said}"
        code = str(getattr(error, "code", None) or "")
        if status == 429 and code == "insufficient_quota":
            return CallError("fatal", f"{self.url}: the account's quota is used up ({said})", hint="the replies so far are in the cache")
        if status in (429, 503, 529):
            return CallError("overload", text, retry_after(error.response.headers))
        if status in (408, 409, 425) or status >= 500:
            return CallError("transient", text, retry_after(error.response.headers))
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
            return [model.id for model in (await self._client.models.list()).data]
        except Exception:  # only used to make an error message more helpful
            return []

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):
        return str(body.get("message") or body)
    return str(body or error.message)


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
