# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks of releases: bad, for one that failed a gate, and held, for one from which a pool was rolled back.

They lie beside the releases and name them by id: a release that is staged anew, or was removed meanwhile, keeps its
mark, and a mark makes no other release of it.
"""

from __future__ import annotations

import json

from ansible_collections.llmops.vllm.plugins.module_utils._release.home import Home
from ansible_collections.llmops.vllm.plugins.module_utils._release.meaning import ReleaseError

MARKS = ("bad", "held")
NONE = "none"
_FILE = "marks.json"


def marks_of(home: Home, release: str) -> dict[str, str]:
    """Why a release is marked, under each mark; empty texts where it is not."""
    return {**dict.fromkeys(MARKS, ""), **_read(home).get(release, {})}


def marked(home: Home, release: str, mark: str, reason: str) -> dict[str, str]:
    """The marks of a release when it has got one more, or has lost all of them."""
    if mark == NONE:
        return dict.fromkeys(MARKS, "")
    text = " ".join(reason.split())
    if not text:
        raise ReleaseError(f"reason is empty: say why release {release} is marked {mark}")
    return {**marks_of(home, release), mark: text}


def write_marks(home: Home, release: str, marks: dict[str, str]) -> None:
    """Keeps the marks of a release; the caller holds the lock."""
    every = {**_read(home), release: {mark: reason for mark, reason in marks.items() if reason}}
    kept = {name: found for name, found in every.items() if found}
    home.put(_FILE, json.dumps(kept, indent=2, sort_keys=True) + "\n" if kept else "")


def diff_of_marks(home: Home, release: str, before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """The change of a release's marks as ansible prints it."""
    old, new = ("".join(f"{mark}: {why}\n" for mark, why in marks.items() if why) for marks in (before, after))
    header = f"{home.replica} marks ({release})"
    return {"before_header": header, "after_header": header, "before": old, "after": new}


def refuse_marked(home: Home, release: str) -> None:
    """Raises ReleaseError for a release that is not to be tried again."""
    for mark, reason in marks_of(home, release).items():
        if reason:
            raise ReleaseError(
                f"release {release} of replica {home.replica} is marked {mark}: {reason}: stage a different release, "
                "or set llmops_rollout_retry=true to try it once more"
            )


def _read(home: Home) -> dict[str, dict[str, str]]:
    path = home.path / _FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: dict(marks) for name, marks in dict(found).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as problem:
        # not taken for "no marks": a bad release would be tried again
        raise ReleaseError(f"{path} cannot be read ({problem}): mend it, or remove it and all marks with it") from None
