"""The environment in which tests run ansible whose output they read: the same here, in CI and under `make test`."""

from __future__ import annotations

import os
import pathlib


def environment(base: pathlib.Path, **more: str) -> dict[str, str]:
    """Return this process's environment with a home of ansible below ``base``, no colours and results as JSON."""
    plain = {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_HOME": str(base / "home"), "ANSIBLE_NOCOLOR": "1"}
    return {**os.environ, **plain, **more}
