"""A real S3 server for tests (moto), with a list of what it was asked and a hand that can stop a client; one that speaks as Google's;
and a computer that uses them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from columnar import filesystem, remote

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a/secret+that/must+never+be+written+anywhere"
READER = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject", "s3:HeadBucket"], "Resource": "*"}],
}


class Server:
    """moto behind a door that sees every request."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.app = DomainDispatcherApplication(create_backend_app)
        self.asked: list[tuple[str, str]] = []  # (method, path), of objects and listings
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.enforced = False
        self.denied: set[str] = set()  # paths of objects that nobody gets
        self.server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.asked.append((method, path))
        self.before(method, path)
        if path in self.denied or (self.enforced and "HTTP_AUTHORIZATION" not in environ):  # where S3 refuses, moto breaks down
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return [] if method == "HEAD" else [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        found: Iterable[bytes] = self.app(environ, start)
        return found

    def close(self) -> None:
        self.server.shutdown()

    def environment(self, key: str = "AKIAEXAMPLE", secret: str = SECRET) -> dict[str, str]:
        """What a user sets."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str = "s3") -> Any:
        import boto3

        return boto3.client(
            service, endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key=SECRET
        )

    def put(self, bucket: str, key: str, rows: list[dict[str, Any]]) -> None:
        self.client().put_object(Bucket=bucket, Key=key, Body="".join(json.dumps(row) + "\n" for row in rows).encode())

    def names(self, bucket: str) -> list[str]:
        found = self.client().list_objects_v2(Bucket=bucket).get("Contents", [])
        return sorted(item["Key"] for item in found if not item["Key"].endswith("/"))

    def changes(self) -> list[tuple[str, str]]:
        """The requests that change something."""
        return [(method, path) for method, path in self.asked if method in ("PUT", "POST", "DELETE")]

    def enforce(self, on: bool) -> None:
        """Check keys and permissions from now on, or no longer."""
        self.enforced = False
        body = b"0" if on else b"inf"
        request = urllib.request.Request(f"{self.url}/moto-api/reset-auth", data=body, headers={"Content-Type": "text/plain"})
        urllib.request.urlopen(request).read()
        self.enforced = on

    def reader(self) -> dict[str, str]:
        """The environment of a user who may read and nothing else."""
        iam = self.client("iam")
        name = f"reader{len(iam.list_users()['Users'])}"
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="read", PolicyDocument=json.dumps(READER))
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return self.environment(made["AccessKeyId"], made["SecretAccessKey"])


class Machine:
    """A computer with a cache of its own. Commands run in this process, which forgets before each what it knew."""

    def __init__(self, server: Server, home: Path) -> None:
        self.server, self.home = server, home
        self.env = {**server.environment(), "XDG_CACHE_HOME": str(home / "cache"), "OMP_NUM_THREADS": "1"}

    @contextlib.contextmanager
    def here(self, **env: str) -> Iterator[pytest.MonkeyPatch]:
        """Its environment, in a process that has just started."""
        remote._fetched.clear()
        filesystem._using.clear()
        filesystem._s3.cache_clear()
        filesystem._gs.cache_clear()
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                patch.delenv(name)
            for name, value in {**self.env, "HOME": str(self.home), **env}.items():
                patch.setenv(name, value)
            yield patch

    def run(self, *words: str | Path, rc: int = 0, **env: str) -> str:
        """Everything that a command said, when it ended with this code."""
        self.server.asked.clear()
        out = io.StringIO()
        with self.here(**env) as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            patch.chdir(ROOT)
            patch.setattr(sys, "argv", [str(word) for word in words])
            patch.delitem(sys.modules, str(words[0]), raising=False)
            with pytest.raises(SystemExit) as end:
                runpy.run_module(str(words[0]), run_name="__main__", alter_sys=True)
        said = out.getvalue()
        assert (end.value.code or 0) == rc, said
        assert SECRET not in said
        return said


@contextlib.contextmanager
def google(bucket: str) -> Iterator[str]:
    """The address of a server that speaks as Google Cloud Storage does, with this bucket; a process of its own."""
    port = 0
    while not port:  # one below those that the system hands out by itself, so that nobody is given it before the server asks for it
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", 20_000 + secrets.randbelow(12_000)))
            port = probe.getsockname()[1]
    words = ["start", "--host=127.0.0.1", f"--port={port}", "--in-memory", f"--default-bucket={bucket}"]
    with subprocess.Popen([sys.executable, "-m", "gcp_storage_emulator", *words], stderr=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def clean(environment: dict[str, str]) -> dict[str, str]:
    """This process's environment without its own AWS settings."""
    return {k: v for k, v in os.environ.items() if not k.startswith("AWS_")} | environment
