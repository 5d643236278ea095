# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration on a monitoring host that is somebody's work and not the role's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from .._check.problem import Problem

_SHOWN = 3


def problems(
    host: str,
    paths: Mapping[str, Sequence[str]],
    files: str,
    conffiles: str = "",
    wanted: Collection[str] = (),
) -> Iterator[Problem]:
    """Yield the parts whose configuration somebody else made, though nothing of theirs may run.

    ``paths`` are files and directories by part; ``files`` is what ``md5sum`` says of those without the header of a
    template, ``conffiles`` what ``dpkg-query`` says of the packages' own, which are nobody's work while they are
    unchanged. Files of the names ``wanted`` are those that a run which did not end has left behind.
    """
    packaged = set(re.findall(r"(?m)^ ?(/.*) ([0-9a-f]{32})(?: obsolete)?$", conffiles))
    found = re.findall(r"(?m)^\\?([0-9a-f]{32})  (.*)$", files)
    foreign = sorted(path for digest, path in found if (path, digest) not in packaged and _name(path) not in wanted)
    for part, places in paths.items():
        theirs = [path for path in foreign if path in places or path.rpartition("/")[0] in places]
        if not theirs:
            continue
        more = f" and {len(theirs) - _SHOWN} more" if len(theirs) > _SHOWN else ""
        text = (
            f"would replace or remove {', '.join(theirs[:_SHOWN])}{more} on {host}, which this role did not write: set "
            "it to none, and rules, targets and dashboards go into what is there, or save what you need and give it up "
            "with llm_monitoring_replace_foreign: true"
        )
        yield Problem(host, f"llm_monitoring_{part}_install_method", ", ".join(theirs), text)


def messages(*args: Any, **kwargs: Any) -> list[str]:
    """Return the problems as lines for people."""
    return [str(problem) for problem in problems(*args, **kwargs)]


def _name(path: str) -> str:
    return path.rpartition("/")[2]
