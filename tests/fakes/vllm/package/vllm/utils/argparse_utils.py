"""FAKE vLLM: the parser with ``--config``, as strict and as lax as the real one."""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import Any


def read_config(path: str) -> dict[str, Any]:
    """Read the YAML that this collection writes: JSON, or one ``key: JSON value`` a line."""
    if pathlib.Path(path).suffix not in (".yaml", ".yml"):
        raise ValueError(f"Config file must be of a yaml/yml type. {path} was found.")
    text = pathlib.Path(path).read_text(encoding="utf-8")
    if text.lstrip().startswith("{"):
        return json.loads(text)
    found: dict[str, Any] = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#") and line != "---":
            key, _sep, value = line.partition(":")
            found[key.strip().strip('"')] = json.loads(value.strip())
    return found


class FlexibleArgumentParser(argparse.ArgumentParser):
    """Takes ``--config FILE``, whose values stand before those of the command line; underscores are dashes."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as vLLM does: unknown keys are refused, except that ``false`` for them is silently dropped."""
        words = list(args if args is not None else [])
        if "--config" in words:
            assert words.count("--config") <= 1, "More than one config file specified!"
            at = words.index("--config")
            words[at : at + 2] = self._words(read_config(words[at + 1]))
        words = [self._dashes(word) for word in words]
        return super().parse_args(words, namespace)

    @staticmethod
    def _dashes(word: str) -> str:
        return "--" + word[2:].replace("_", "-") if word.startswith("--") else word

    def _words(self, settings: dict[str, Any]) -> list[str]:
        words: list[str] = []
        for key, value in settings.items():
            flag = self._dashes(f"--{key}")
            if value is True:
                words.append(flag)
            elif value is False:
                if f"--no-{flag[2:]}" in self._option_string_actions:
                    words.append(f"--no-{flag[2:]}")
            elif isinstance(value, list):
                words += [flag, *map(str, value)] if value else []
            else:
                words += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
        return words
