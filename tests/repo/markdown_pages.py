"""The Markdown pages of this repository, and what stands in them: fences, commands, links, headings."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .tree import ROOT

_FENCE = re.compile(r"^(```+)([^\n`]*)\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Fence:
    """A fenced block: the page, what follows the opening, the text."""

    page: str
    kind: str
    text: str


def pages() -> list[pathlib.Path]:
    """Return every page of the checkout, but for what tools leave in hidden folders and in tests/output."""
    entries = [entry for entry in sorted(ROOT.iterdir()) if not entry.name.startswith(".")]
    inside = [path for entry in entries if entry.is_dir() for path in sorted(entry.rglob("*.md"))]
    return [entry for entry in entries if entry.suffix == ".md"] + [p for p in inside if "output" not in p.parts]


def fences(kind: str) -> list[Fence]:
    """Return the fenced blocks of this kind (``yaml``, ``console``, ``text llmops``) of all pages."""
    found = []
    for path in pages():
        for _fence, info, text in _FENCE.findall(path.read_text()):
            if info.strip() == kind:
                found.append(Fence(str(path.relative_to(ROOT)), kind, text))
    return found


def commands() -> dict[str, list[str]]:
    """Return command -> pages: the lines after ``$ `` of console blocks, continued ones joined."""
    found: dict[str, list[str]] = {}
    for fence in fences("console"):
        for line in re.sub(r"\\\n\s*", "", fence.text).splitlines():
            if line.startswith("$ "):
                found.setdefault(line[2:].strip(), []).append(fence.page)
    return found


def prose(path: pathlib.Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", path.read_text())


def links(path: pathlib.Path) -> Iterator[str]:
    """Return the targets of the links of a page that lead into this repository."""
    text = re.sub(r"`[^`\n]*`", "", prose(path))
    return (target for target in _LINK.findall(text) if not re.match(r"[a-z]+:", target))


def anchors(path: pathlib.Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.*?) *$", prose(path), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = sum(1 for other in found if re.fullmatch(re.escape(slug) + r"(-\d+)?", other))
        found.add(f"{slug}-{number}" if number else slug)
    return found
