"""The data browser: look at the rows of a dataset, and at why each is in or out.

    python -m app out/tiny                       one dataset, or several: python -m app out/before out/after
    python -m app                                choose among the datasets below this folder
    python -m app out/tiny --headless --port 8600

Serves this machine only, reads the datasets and writes nothing but their flags.jsonl. The same page by hand, from any folder:
streamlit run app/main.py -- out/tiny
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from columnar import cli
from columnar.errors import ConfigError, InputError

MAIN = Path(__file__).resolve().with_name("main.py")


def command(dirs: list[Path], port: int | None = None, headless: bool = False) -> list[str]:
    """The streamlit command. The settings repeat app/.streamlit/config.toml, so that a config of the user's cannot undo them."""
    settings = {
        "server.address": "127.0.0.1",
        "server.fileWatcherType": "none",
        "server.showEmailPrompt": "false",
        "browser.gatherUsageStats": "false",
    }
    if port is not None:
        settings["server.port"] = str(port)
    if headless:
        settings["server.headless"] = "true"
    flags = [word for name, value in settings.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "streamlit", "run", str(MAIN), *flags, "--", *map(str, dirs)]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("app", __doc__)
    made.add_argument("dirs", nargs="*", type=Path, metavar="DIR", help="dataset directories (default: those below this folder)")
    made.add_argument("--port", type=int, help="the port to serve on (default: 8501, or the next free one)")
    made.add_argument("--headless", action="store_true", help="do not open a browser window")
    return made


def main(args: argparse.Namespace) -> None:
    """Run the command: this process becomes the server."""
    missing = [str(path) for path in args.dirs if not path.is_dir()]
    if missing:
        raise InputError(f"no such directory: {', '.join(missing)}", "make a dataset with: python -m columnar.load FILE --out DIR")
    if args.port is not None and not 0 < args.port < 65536:
        raise ConfigError(f"--port {args.port}: expected 1 to 65535")
    if importlib.util.find_spec("streamlit") is None:
        raise InputError("the browser needs streamlit, which is not installed", 'pip install "caravan[app]" (or pip install -e ".[app]")')
    words = command(args.dirs, args.port, args.headless)
    os.execv(words[0], words)


if __name__ == "__main__":
    sys.exit(cli.run(main, parser()))
