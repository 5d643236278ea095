# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Source ``hf://``: a repository of a hub, fetched by the hub's own command."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence

from .files import LEFT_OUT, git_blob, wanted
from .host import expect
from .request import Request
from .safetensors import ModelError

_DOWNLOAD_SIZE = re.compile(r"totalling ([0-9]+(?:\.[0-9]+)?)([KMGTP]?)")


def download(request: Request, held: int) -> None:
    """Let the hub's own command fetch; what it had fetched before it was killed, it does not fetch again."""
    repository = request.source.removeprefix("hf://")
    _unused, told = _run(request, repository, held, ["--dry-run"])  # when it fails, the download itself says better why
    size = _DOWNLOAD_SIZE.search(told)
    needed = float(size[1]) * 1000 ** " KMGTP".index(size[2] or " ") if size else 0
    partial = sum(path.stat().st_size for path in (request.incoming / ".cache").rglob("*.incomplete"))
    expect(request, max(0, int(needed) - partial))
    code, told = _run(request, repository, held, ["--quiet", "--max-workers", str(request.parallel)])
    # Without the hub, some versions take whatever lies in the directory for the model, and end well.
    if code != 0 or "repo cannot be accessed" in told:
        end = " ".join(line.strip() for line in told.strip().splitlines()[-5:])
        hint = "" if request.hub_token else " (a private or gated repository needs hub_token: llm_model_hub_token)"
        raise ModelError(f"hf download {repository} at {request.revision} ended with {code}: {end}{hint}")


def _run(request: Request, repository: str, held: int, options: Sequence[str]) -> tuple[int, str]:
    """Run ``hf download`` with these options; return its exit status and what it printed."""
    command = [request.hub_command, "download", repository, "--revision", request.revision, *options]
    command += ["--local-dir", str(request.incoming)]
    command += [word for pattern in request.include for word in ("--include", pattern)]
    command += [word for pattern in request.exclude for word in ("--exclude", pattern)]
    env: dict[str, str] = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    env |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_COLOR": "1"}
    env["HF_HOME"] = str(request.workspace / "home")
    if request.hub_token:
        env["HF_TOKEN"] = request.hub_token  # by environment: a command line is open to every user of the host
    if request.hub_endpoint:
        env["HF_ENDPOINT"] = request.hub_endpoint
    try:
        # The child holds the lock too: should this process be killed, the next run waits until the child has ended.
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(held,),
            timeout=request.timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"hf download {repository} at {request.revision} did not end within {request.timeout:g} s (timeout)"
        ) from error
    except OSError as error:
        raise ModelError(f"{request.hub_command}: cannot be run ({error}): install the environment first") from error
    return done.returncode, done.stdout.decode(errors="replace").replace(request.hub_token or "\0", "***")


def _hub_files(request: Request) -> dict[str, str]:
    """Return file name -> what the hub says of its content: a SHA-256, or the SHA-1 by which git names a blob.

    The hub's command writes both forms: the listing of the commit, and a record beside each file that it finished.
    """
    notes = request.incoming / ".cache" / "huggingface"
    try:
        listed = json.loads((notes / "trees" / f"{request.revision}.json").read_text(encoding="utf-8"))["files"]
        found = {name: str(about.get("lfs_sha256") or about["blob_id"]) for name, about in listed.items()}
        return {name: digest for name, digest in found.items() if wanted(name, request.include, request.exclude)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        records = sorted((notes / "download").rglob("*.metadata"))
    found = {}
    for record in records:
        commit, digest = [*record.read_text(encoding="utf-8").splitlines(), "", ""][:2]
        name = str(record.relative_to(notes / "download"))[: -len(".metadata")]
        found[name] = digest if commit == request.revision else f"another commit, {commit}"
    if not found:
        raise ModelError(
            f"{request.hub_command}: left no record of what it downloaded: use huggingface_hub 1.0 or later"
        )
    return found


def compare(request: Request, sums: Mapping[str, str]) -> None:
    """Raise ModelError unless every file is there as the hub describes it; the next run brings a bad one anew."""
    for name, expected in _hub_files(request).items():
        if name.split("/")[0] in LEFT_OUT:
            continue
        if name not in sums:
            raise ModelError(f"{request.source}: {name} is missing, though the hub's command ended well: run again")
        found = sums[name] if len(expected) == 64 else git_blob(request.incoming / name)
        if found != expected:
            (request.incoming / name).unlink()
            (request.incoming / ".cache" / "huggingface" / "download" / f"{name}.metadata").unlink(missing_ok=True)
            raise ModelError(
                f"{request.source}: {name} arrived altered: {found}, and the hub says {expected}: run again"
            )
