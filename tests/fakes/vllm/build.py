"""Builds the FAKE vLLM as a wheel, so that the role installs it by its ordinary way.

``python tests/fakes/vllm/build.py --wheel-dir DIRECTORY``
"""

from __future__ import annotations

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))

from tools.metadata_wheel import write_wheel  # noqa: E402

PACKAGE = pathlib.Path(__file__).resolve().parent / "package"
VERSION = "0.32.0+fake"


def build(directory: str | pathlib.Path) -> pathlib.Path:
    """Write the wheel into the directory and return its path; the same sources give the same bytes."""
    sources = sorted(path for path in PACKAGE.rglob("*.py"))
    files = {str(path.relative_to(PACKAGE)): path.read_bytes() for path in sources}
    scripts = b"[console_scripts]\nvllm = vllm.entrypoints.cli.main:main\n"
    return write_wheel("vllm", VERSION, [], directory, files=files, info={"entry_points.txt": scripts})


def main() -> int:
    """Parse the command line and print the path of the wheel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", default=".")
    parser.add_argument("--wheel-dir", help="the same, named")
    arguments = parser.parse_args()
    print(build(arguments.wheel_dir or arguments.directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
