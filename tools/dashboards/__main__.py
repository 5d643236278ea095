"""``python -m tools.dashboards``: writes the dashboards of the role llm_monitoring from their tables of panels."""

from __future__ import annotations

import argparse
import sys

from . import build


def main() -> int:
    """Write the files, or say which ones are stale."""
    parser = argparse.ArgumentParser(prog="python -m tools.dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if a file is stale")
    if parser.parse_args().check:
        stale = build.stale()
        print("\n".join(f"{name} is not what its table says: run `python -m tools.dashboards`" for name in stale))
        return int(bool(stale))
    for name in build.write():
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
