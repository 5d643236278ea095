"""FAKE of the commands ``aws``, ``gcloud``, ``gsutil`` and ``rclone``, as far as they print objects and sizes.

It stands in for them because tests must not need an account. Written to their published interfaces; objects are files
below a directory, ``<buckets>/<bucket>/<key>``. ``write`` makes one under the name of the command that it plays.
"""

from __future__ import annotations

import pathlib
import sys

_BODY = """#!{python}
import json, os, pathlib, re, sys
buckets, words = pathlib.Path({buckets!r}), sys.argv[1:]
tool = pathlib.Path(sys.argv[0]).name
with open({log!r}, "a") as log:
    log.write(json.dumps([tool, *words]) + "\\n")
if os.environ.get("BUCKET_KEY") != {key!r}:
    sys.exit("AccessDenied for the key " + os.environ.get("BUCKET_KEY", ""))


def place(address):
    found = re.fullmatch(r"(s3|gs):(//)?(.*)", address)
    return buckets / found[3]


def total(folder):
    if not folder.is_dir():
        sys.exit("no such bucket or directory")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


offset = 0
if tool == "aws" and words[:3] == ["s3", "cp", "--only-show-errors"] and words[4] == "-":
    address = words[3]
elif tool == "aws" and words[:4] == ["s3", "ls", "--recursive", "--summarize"] and words[4].endswith("/"):
    sys.exit(print("2026-11-01 10:00:00 7 x\\n\\nTotal Objects: 3\\n   Total Size:", total(place(words[4]))))
elif tool == "gcloud" and words[:2] == ["storage", "cat"]:
    address, ranges = words[-1], [word for word in words if word.startswith("--range=")]
    offset = int(ranges[0][8:-1]) if ranges else 0
elif tool == "gcloud" and words[:3] == ["storage", "du", "--summarize"]:
    sys.exit(print(total(place(words[3])), " ", words[3]))
elif tool == "gsutil" and words[:2] == ["-q", "cat"]:
    address = words[-1]
    offset = int(words[words.index("-r") + 1][:-1]) if "-r" in words else 0
elif tool == "gsutil" and words[:3] == ["-q", "du", "-s"]:
    sys.exit(print(total(place(words[3])), "", words[3]))
elif tool == "rclone" and words[:2] == ["cat", "--offset"]:
    offset, address = int(words[2]), words[3]
elif tool == "rclone" and words[:2] == ["size", "--json"]:
    sys.exit(print(json.dumps({{"count": 3, "bytes": total(place(words[2]))}})))
else:
    sys.exit(f"{{tool}}: unknown command {{words}}")
if not place(address).is_file():
    sys.exit(f"NoSuchKey: {{address}}")
content = place(address).read_bytes()[offset:]
broken = buckets / "broken"  # holds how often the command is to break, in the middle
times = int(broken.read_text()) if broken.exists() and len(content) > 1000 else 0
sys.stdout.buffer.write(content[: len(content) // 2] if times else content)
if times:
    broken.write_text(str(times - 1))
    sys.exit("connection reset by peer")
"""


def write(folder: pathlib.Path, name: str, buckets: pathlib.Path, key: str = "") -> str:
    """Write the command into a folder and return its path; it wants ``BUCKET_KEY`` to be this key."""
    command = folder / name
    log = folder / f"{name}.log"
    command.write_text(_BODY.format(python=sys.executable, buckets=str(buckets), log=str(log), key=key))
    command.chmod(0o755)
    return str(command)
