"""Where a row came from and why it is in or out, as HTML: the story of columnar.explain, nothing added. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from app.render import escape, facts

HIDDEN = {"preview", "matched", "id"}


def headline(story: dict[str, Any]) -> str:
    """One sentence: in or out, and why."""
    out = " cv-out" if story["fate"] == "dropped" else ""
    row = story["row"]
    place = f"{row.get('source')} · {row.get('kind')}"
    return f'<div class="cv-why{out}"><code>{escape(story["id"])}</code> &nbsp;{escape(place)} &nbsp;·&nbsp; {escape(story["why"])}</div>'


def panel(story: dict[str, Any], address: Callable[[str], str]) -> str:
    """Origin, parents, each stage's verdict, evidence, flags.

    Args:
        address: where a click on another row's id leads.
    """
    row = story["row"]
    origin = row.get("origin") or {}

    def link(row_id: str) -> str:
        return f'<a href="{escape(address(row_id))}" target="_self"><code>{escape(row_id)}</code></a>'

    lines: list[tuple[str, str]] = [
        ("file", escape(str(origin.get("uri") or "not stated"))),
        (
            "record",
            escape(" · ".join(str(origin[key]) for key in ("revision", "split", "row") if origin.get(key) is not None) or "not stated"),
        ),
        ("license", escape(str(row.get("license") or "not stated"))),
    ]
    if row.get("parents"):
        lines.append(("made from", " ".join(map(link, row["parents"]))))
    if story["children"]:
        lines.append(("made of it", " ".join(map(link, story["children"]))))
    for stage, columns in story["stages"].items():
        said = " · ".join(f"{name} {short(v)}" for name, v in columns.items() if v is not None and v is not False and name not in HIDDEN)
        lines.append((stage, escape(said or "nothing to say")))
    for name, hits in story["hits"].items():
        for hit in hits:
            said = " · ".join(f"{key} {short(v)}" for key, v in hit.items() if v is not None and key not in HIDDEN)
            matched = f'<br><mark class="cv-hit">{escape(hit["matched"][:500])}</mark>' if hit.get("matched") else ""
            lines.append((f"hit {name}", escape(said) + matched))
    if story["kept"]:
        lines.append(("kept instead", f"{link(story['kept']['id'])} {escape(story['kept']['why'])}"))
    for twin in story["stands_for"]:
        said = " · ".join(f"{key} {short(v)}" for key, v in twin.items() if v is not None and key not in ("id", "kept_id"))
        lines.append(("stands for", f"{link(str(twin['id']))} {escape(said)}"))
    for flag in story["flags"]:
        said = " · ".join(str(flag[key]) for key in ("note", "who", "at") if flag.get(key))
        lines.append(("flag", f'<span class="cv-flag">{escape(str(flag["flag"]))}</span>{escape(said)}'))
    if row.get("meta"):
        lines.append(("meta", f'<pre class="cv-command">{escape(json.dumps(row["meta"], ensure_ascii=False, indent=1)[:5000])}</pre>'))
    body = "".join(f"<dt>{escape(name)}</dt><dd>{said}</dd>" for name, said in lines)
    return facts([("id", story["id"])]).replace("</dl>", body + "</dl>")


def spans(story: dict[str, Any], field: str) -> dict[int, list[tuple[int, int]]]:
    """Text shared with benchmark items, by turn of a field."""
    found: dict[int, list[tuple[int, int]]] = {}
    for hit in story["hits"].get("decontam", ()):
        if hit.get("field") == field and None not in (hit.get("turn"), hit.get("start"), hit.get("end")):
            found.setdefault(int(hit["turn"]), []).append((int(hit["start"]), int(hit["end"])))
    return found


def short(value: Any) -> str:
    """A value on one line."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)[:300]


def laid_out(text: str) -> str:
    """JSON with line breaks, or the text as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
