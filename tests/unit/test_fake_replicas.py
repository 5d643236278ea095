"""The fake replicas are taken for replicas by what asks replicas."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import urllib.request

from ansible_collections.llmops.vllm.plugins.module_utils._vllm import api as vllm_api

from tests.fakes import replicas
from tests.fakes.vllm.running import KEY, await_that, lay_out, starter

PORT, COUNT = 27411, 3


def test_modules_take_them_for_replicas_that_generate(tmp_path: pathlib.Path) -> None:
    with starter(lay_out(tmp_path), "page") as start:
        (tmp_path / "page").write_text(start().call("GET", "/metrics")[1])
    words = [sys.executable, replicas.__file__, "--page", str(tmp_path / "page"), "--port", str(PORT)]
    with subprocess.Popen([*words, "--count", str(COUNT)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert b"FAKE replicas" in process.stdout.readline()
            for number in range(COUNT):
                seen = vllm_api.look(vllm_api.Replica(f"http://127.0.0.1:{PORT + number}", KEY, 5))
                assert (seen["health"], seen["model"], seen["running"]) == ("ok", "tiny", 8), seen

            def steps() -> float:
                page = urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics").read().decode()
                row = next(line for line in page.splitlines() if line.startswith("vllm:iteration_tokens_total_count"))
                return float(row.rpartition(" ")[2])

            first = steps()
            await_that(lambda: steps() > first, "the step counter moves")
        finally:
            process.kill()
