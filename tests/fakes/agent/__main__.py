"""Runs the small agent until it is killed: ``python -m tests.fakes.agent DIRECTORY [HOST]``.

In the directory lie ``control.sock``, ``admin.json`` and, written by the test, ``world.json``.
"""

from __future__ import annotations

import asyncio
import pathlib
import sys

from ansible_collections.llmops.vllm.plugins.module_utils._agent.control import ControlServer
from ansible_collections.llmops.vllm.plugins.module_utils._agent.store import Store

from tests.fakes.agent import SmallAgent


async def serve(base: pathlib.Path, host: str) -> None:
    backend = SmallAgent(Store(base / "admin.json"), base / "world.json", host)
    await ControlServer(backend, str(base / "control.sock"), lambda text: print(text, file=sys.stderr)).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(pathlib.Path(sys.argv[1]).resolve(), sys.argv[2] if len(sys.argv) > 2 else "lb1"))
