# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a model revision is pinned: the one rule that inventory checks, role and module share."""

from __future__ import annotations

import re

SOURCES = ("hf://", "https://", "http://", "s3://", "gs://", "controller://", "file://")
BUCKETS = ("s3://", "gs://")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?/\S+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]+/[^\s?#]+")
_MOVING = ("main", "master", "latest", "head")


def revision_problem(source: str, revision: str) -> str | None:
    """Return why this revision of this source is not pinned, with the mend, or None when it is.

    A hub repository is pinned by the 40 hexadecimal digits of a commit: branches and tags move. A directory, a mirror
    or a bucket has no commits, so any label will do that does not pretend to move.
    """
    if source.startswith("hf://"):
        if _COMMIT.fullmatch(revision):
            return None
        return f"is {revision!r}, which can move: give the 40 hexadecimal digits of a commit of {source}"
    if revision.lower() in _MOVING:
        return f"is {revision!r}, which names no fixed content: give a label of its own to every state of {source}"
    if not _LABEL.fullmatch(revision):
        return f"is {revision!r}: give 1 to 64 letters, digits, dots, dashes or underscores, a letter or digit first"
    return None


def source_problem(source: str) -> str | None:
    """Return what is wrong with a model source, with the mend, or None."""
    source = re.sub(r"://[^/@\s]*@", "://...@", source)  # a password is never shown
    if not source.startswith(SOURCES):
        return f"is {source!r}: begin it with one of {', '.join(SOURCES)}"
    scheme, _sep, rest = source.partition("://")
    if scheme in ("http", "https"):
        if "@" in rest.split("/")[0]:
            return f"is {source!r}, with a login, which would be shown: give it in llm_model_mirror_headers"
        if not _HOST.fullmatch(rest) or set(rest) & set("?#"):
            return f"is {source!r}: give a directory of a mirror, as in {scheme}://mirror.example/models/llama-8b"
        return None
    if source.startswith(BUCKETS):
        if not _BUCKET.fullmatch(rest):
            return f"is {source!r}: give bucket and directory, as in {scheme}://bucket/models/llama-8b"
        return None
    if scheme == "hf" and not re.fullmatch(r"[\w.-]+/[\w.-]+", rest):
        return f"is {source!r}: name a repository as hf://organisation/repository"
    if scheme != "hf" and not rest.startswith("/"):
        return f"is {source!r}: give an absolute directory, as in {scheme}:///srv/models/example"
    return None
