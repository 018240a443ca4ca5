"""What Streamlit runs for every page: `python -m app` starts it, and so does, from any folder: streamlit run app/main.py -- DIR..."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # a plain `streamlit run` puts only this file's folder on the path
    sys.path.insert(0, str(ROOT))

from app import pages  # noqa: E402

pages.draw(sys.argv[1:])
