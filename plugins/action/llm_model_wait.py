# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for a model on the controller: only who runs here can print while the host is busy."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.llmops.vllm.plugins.module_utils._model import progress as model_progress

_MODULE = "llmops.vllm.llm_model_wait"
_SHORT_S = 1.0  # the first looks follow each other quickly: small models are there at once


class ActionModule(ActionBase):
    """``llmops.vllm.llm_model_wait``."""

    TRANSFERS_FILES = False
    # supports_check_mode=True: a module that only looks
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look once without a job; with one, print and wait until it has ended, and return its result."""
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        job = arguments.get("job")
        if not job or self._task.check_mode:
            return {**result, **self._execute_module(module_name=_MODULE, module_args=arguments, task_vars=task_vars)}
        interval = float(arguments.get("interval", 15))
        who = f"{(task_vars or {}).get('inventory_hostname')}: {arguments['name']} {str(arguments['revision'])[:12]}"
        pause, before, said_at, line = _SHORT_S, {"phase": "", "bytes": 0}, time.monotonic(), ""
        while True:
            ended = self._status(job, "status", task_vars)
            if ended.get("finished") or ended.get("failed"):
                break
            looked = self._execute_module(module_name=_MODULE, module_args=arguments, task_vars=task_vars)
            now = looked.get("progress", before)
            told = model_progress.sentence(now, before, time.monotonic() - said_at)
            if told and told != line:
                self._display.display(f"{who}: {told}")
                before, said_at, line = now, time.monotonic(), told
            time.sleep(pause)
            pause = min(interval, pause * 2)
        self._status(job, "cleanup", task_vars)
        kept = {name: value for name, value in ended.items() if name not in ("started", "finished", "results_file")}
        return {**result, **kept}

    def _status(self, job: str, mode: str, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        task = self._task.copy()
        task.args = {"jid": job, "mode": mode}
        action = self._shared_loader_obj.action_loader.get(
            "ansible.legacy.async_status",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        found: dict[str, Any] = action.run(task_vars=task_vars)
        return found
