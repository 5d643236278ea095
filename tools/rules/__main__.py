"""``python -m tools.rules`` writes the rule files of the role llm_monitoring; ``--check`` says which differ."""

from __future__ import annotations

import argparse
import sys

from .source import GROUPS, ROOT, TARGET, text


def main() -> int:
    """Write what differs, or only say so."""
    parser = argparse.ArgumentParser(prog="python -m tools.rules", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; end with 1 when a file differs")
    check = parser.parse_args().check
    wanted = {TARGET / f"llmops_{group}.yml": text(group) for group in GROUPS}
    stray = [path for path in TARGET.glob("*.yml") if path not in wanted]
    differing = [path for path, content in wanted.items() if not path.exists() or path.read_text() != content]
    for path in stray + differing:
        print(f"{'differs:' if check else 'wrote'} {path.relative_to(ROOT)}")
    if check:
        return int(bool(stray + differing))
    for path in stray:
        path.unlink()
    TARGET.mkdir(parents=True, exist_ok=True)
    for path in differing:
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
