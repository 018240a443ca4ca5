"""The data browser: look at the rows of a dataset, and at why each is in or out.

    python -m app out/tiny                       one dataset, or several: python -m app out/before out/after
    python -m app                                choose among the datasets below this folder
    python -m app out/tiny --headless --port 8600

Serves this machine only, reads the datasets and writes nothing but their flags.jsonl. The same page by hand, from any folder:
streamlit run app/main.py -- out/tiny
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
import threading
from pathlib import Path

from columnar import cli
from columnar.errors import CaravanError, ConfigError, InputError
from columnar.filesystem import place
from columnar.remote import fetch

MAIN = Path(__file__).resolve().with_name("main.py")


def words(dirs: list[Path], port: int | None = None, headless: bool = False) -> list[str]:
    """Streamlit's command line. The settings repeat app/.streamlit/config.toml, so that a config of the user's cannot undo them."""
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
    return ["streamlit", "run", str(MAIN), *flags, "--", *map(str, dirs)]


def warm(directory: Path) -> None:
    """Open the dataset and read what its first page shows, while the server and the browser window are still coming up."""
    from app import db, listing
    from app.state import State
    from columnar.explain import explain

    with contextlib.suppress(CaravanError, OSError):  # the page itself says what is wrong
        data = db.open_data(directory)
        for row in listing.page(data, State()).rows[:1]:
            explain(directory, row["id"], data.connection)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("app", __doc__)
    made.add_argument("dirs", nargs="*", type=place, metavar="DIR", help="dataset directories (default: those below this folder)")
    made.add_argument("--port", type=int, help="the port to serve on (default: 8501, or the next free one)")
    made.add_argument("--headless", action="store_true", help="do not open a browser window")
    return made


def main(args: argparse.Namespace) -> None:
    """Run the command: this process is the server."""
    for path in args.dirs:
        fetch(path)
    missing = [str(path) for path in args.dirs if not path.is_dir()]
    if missing:
        raise InputError(f"no such directory: {', '.join(missing)}", "make a dataset with: python -m columnar.load FILE --out DIR")
    if args.port is not None and not 0 < args.port < 65536:
        raise ConfigError(f"--port {args.port}: expected 1 to 65535")
    if importlib.util.find_spec("streamlit") is None:
        raise InputError("the browser needs streamlit, which is not installed", 'in the folder of the project: pip install ".[app]"')
    if args.dirs:
        threading.Thread(target=warm, args=(args.dirs[0],), daemon=True).start()
    sys.argv = words(args.dirs, args.port, args.headless)
    from streamlit.web.cli import main as streamlit

    streamlit()


if __name__ == "__main__":
    sys.exit(cli.run(main, parser()))
