# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files in a bucket, read by the operator's own command: ``aws``, ``gcloud``, ``gsutil`` or ``rclone``.

Each of them can print an object. What it prints is read here, so limits, checks and going on are those of any source,
and where credentials come from is the command's own business: a role of the machine, a file of root's, the environment.
"""

from __future__ import annotations

import os
import pathlib
import re
import select
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO, cast

from .fetch import TransferError
from .safetensors import ModelError
from .tools import TOOLS, USUAL

_SIZE_TIMEOUT_S = 120.0
_SILENCE_S = 120.0


class Bucket:
    """A directory in a bucket."""

    def __init__(self, source: str, command: str, environment: Mapping[str, str], secrets: Mapping[str, str]) -> None:
        self.name = source.rstrip("/")
        self._command = command or USUAL[source.partition("://")[0]]
        self._tool = TOOLS[pathlib.PurePath(self._command).name]
        self._secrets = [str(value) for value in secrets.values() if str(value)]
        # By environment: a command line is open to every user of the host.
        self._environment = {**os.environ, **{name: str(value) for name, value in {**environment, **secrets}.items()}}

    def open(self, name: str, offset: int) -> _Output:
        """Begin to read an object at this byte, or at its first one where the command cannot do better."""
        offset = offset if self._tool.ranges else 0
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - it ends with the stream
        try:
            process = subprocess.Popen(
                [self._command, *self._tool.cat(f"{self.name}/{name}", offset)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )
        except OSError as error:
            errors.close()
            raise self._absent(error) from error
        return _Output(f"{self.name}/{name}", process, errors, offset, self._masked)

    def size(self, names: Sequence[str]) -> int:
        """Return the size of all that lies there, 0 when the command may not list it."""
        try:
            done = subprocess.run(
                [self._command, *self._tool.size(self.name)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_SIZE_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return 0
        told = re.search(self._tool.told, done.stdout.decode(errors="replace"))
        return int(told[1]) if told and done.returncode == 0 else 0

    def _absent(self, error: OSError) -> ModelError:
        return ModelError(f"{self._command}: cannot be run ({error}): install it, or set llm_model_bucket_command")

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class _Output:
    def __init__(
        self,
        address: str,
        process: subprocess.Popen[bytes],
        errors: IO[bytes],
        begin: int,
        masked: Callable[[str], str],
    ) -> None:
        self._address, self._process, self._errors, self.begin = address, process, errors, begin
        self._masked = masked
        self._stdout = cast("IO[bytes]", process.stdout)  # a pipe, always

    def read(self, limit: int) -> bytes:
        if not select.select([self._stdout], [], [], _SILENCE_S)[0]:
            text = f"{self._address}: the command has printed nothing for {_SILENCE_S:g} s"
            raise TransferError(text, passing=True)
        return self._stdout.read(limit)

    def finish(self) -> None:
        if self._process.wait() != 0:
            self._errors.seek(0)
            told = self._masked(" ".join(self._errors.read()[-1000:].decode(errors="replace").split()))
            text = f"{self._address}: the command ended with {self._process.returncode}: {told}"
            raise TransferError(text, passing=True)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._stdout.close()
        self._errors.close()
