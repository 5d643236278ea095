#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_benchmark
short_description: Measure a pool or a replica with vLLM's own benchmark
version_added: 0.2.0
description:
  - Runs C(vllm bench serve) of an installed environment with the load of a profile's recipe, and returns the figures
    with what makes them doubtful.
  - This is load, and as much as the recipe says. It is bounded in number and in time; requests of clients wait behind
    it all the same.
  - The host on which the module runs is the client. Run it on one that does not serve what is measured, and in the same
    network.
  - Prompts are made up and of fixed length, answers are greedy and of fixed length. The client is offline, and counts
    prompts by a tokenizer on the host.
  - vLLM's client counts an answer that breaks off with an error event as completed. RV(figures.short) counts those, and
    none of them is a good one in RV(figures.good_share).
options:
  env:
    description:
      - Environment whose C(bin/vllm) is the client, such as V(/opt/vllm/env/0.32.0-1a2b3c4d). It should be that of the
        version that serves, since clients of two versions measure two things.
    type: path
    required: true
  version:
    description:
      - Version that serves. With it, an environment of another one is refused. Builds of a version, such as
        V(0.32.0+cu129), are not told apart.
    type: str
    default: ""
  url:
    description: Address of a balancer or of a replica, such as V(http://192.0.2.21:8000), without C(/v1).
    type: str
    required: true
  model:
    description: The served name that answers.
    type: str
    required: true
  tokenizer:
    description: Directory of the model on the host, or one with a copy of its tokenizer's files and C(config.json).
    type: path
    required: true
  api_key:
    description: A key that is accepted at O(url). The client gets it by its environment.
    type: str
    default: ""
  ca_path:
    description: Certificate of the authority that signed the one at O(url), where the system does not know it.
    type: path
  profile:
    description: Whose recipe is the load.
    type: str
    choices: [baseline, long_context, multi_turn, streaming, batch]
    default: baseline
  recipe:
    description:
      - Figures that replace those of the recipe; runs with other figures are not compared.
      - Per prompt C(input_tokens), of which C(shared_tokens) are those of one of C(conversations), and
        C(output_tokens). Per replica C(requests), C(concurrency) (0 is no bound), C(request_rate) a second (0 is one
        after the other), C(conversations) and C(warmups). C(burstiness) of arrivals at a rate. C(goodput_ms), a mapping
        of C(ttft), C(tpot) and C(e2el) to the milliseconds within which an answer is a good one.
    type: dict
    default: {}
  replicas:
    description: Replicas that answer at O(url). The load grows with them.
    type: int
    default: 1
  seed:
    description:
      - Decides the prompts and when they come. V(0) means another one with each run, because a prompt that was asked
        before may still be in the prefix cache.
    type: int
    default: 0
  timeout:
    description: Seconds after which the client is stopped, without a result.
    type: int
    default: 1800
  result_dir:
    description:
      - Directory on the host in which vLLM's own result is left as C(result.json). It holds the answers, too. Without
        it, the result is removed when it was read.
    type: path
extends_documentation_fragment:
  - llmops.vllm.attributes.info
attributes:
  check_mode:
    support: full
    description: Asks only what is served, returns RV(command), and is skipped.
  idempotent:
    support: none
    description: Each run is a measurement.
seealso:
  - module: llmops.vllm.vllm_shadow
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Measure a drained replica with the load of the chats
  llmops.vllm.vllm_benchmark:
    env: /opt/vllm/env/0.32.0-1a2b3c4d
    version: 0.32.0
    url: http://192.0.2.21:8000
    api_key: "{{ llmops_backend_keys | first }}"
    model: llama-70b
    tokenizer: /srv/llm-models/llama-70b/6f6073b423013f6a7d4d9f39144961bfbfbc386b
    profile: multi_turn
  delegate_to: gpu2
  register: benchmark

- name: Half the load, for a pool of three whose context is short
  llmops.vllm.vllm_benchmark:
    env: /opt/vllm/env/0.32.0-1a2b3c4d
    url: https://192.0.2.10
    ca_path: /etc/ssl/llm-ca.crt
    api_key: "{{ vault_benchmark_key }}"
    model: llama-70b
    tokenizer: /srv/llm-models/llama-70b/6f6073b423013f6a7d4d9f39144961bfbfbc386b
    profile: batch
    recipe:
      input_tokens: 1024
      concurrency: 128
      requests: 512
    replicas: 3
"""

RETURN = r"""
figures:
  description: What was measured.
  returned: when requests were asked
  type: dict
  contains:
    completed:
      description: Requests that vLLM's client counts as answered.
      type: int
    failed:
      description: Requests that were not.
      type: int
    short:
      description: Answers among the completed ones that broke off.
      type: int
    duration_seconds:
      description: Seconds from the first request to the last answer, warm-up left out.
      type: float
    input_tokens:
      description: Tokens of all prompts. The same for C(output_tokens).
      type: int
    request_throughput:
      description: Answers a second.
      type: float
    output_throughput:
      description: Tokens of answers a second; C(total_token_throughput) counts prompts, too.
      type: float
    request_goodput:
      description: Answers a second that were whole and within the recipe's limits. Null where it has none.
      type: float
    good_share:
      description: Their part of all requests, 0 to 1.
      type: float
    ttft_ms:
      description:
        - C(p50), C(p90) and C(p99) of the time to the first token. The same for C(tpot_ms), the mean time of a token
          of an answer; C(itl_ms), the time between two tokens; C(e2e_ms), that of the whole answer.
      type: dict
doubts:
  description: What makes the figures doubtful, such as requests that failed, or a client that was too slow.
  returned: when requests were asked
  type: list
  elements: str
client_cpu_share:
  description: Part of a core that the client used while it asked. Null when that was too short to tell.
  returned: when requests were asked
  type: float
recipe:
  description: The load for one replica, with its C(name) and all figures.
  returned: always
  type: dict
recipe_digest:
  description: Is the same for runs with the same recipe.
  returned: always
  type: str
replicas:
  description: Replicas by which the load was multiplied.
  returned: always
  type: int
version:
  description: Version of vLLM whose client was run.
  returned: always
  type: str
seed:
  description: What decided the prompts.
  returned: always
  type: int
command:
  description: The command. The key is not in it.
  returned: always
  type: list
  elements: str
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark import run as runs
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark.recipes import recipe
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark.result import doubts, figures
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import Replica, installed_version

SPEC = {
    "env": {"type": "path", "required": True},
    "version": {"type": "str", "default": ""},
    "url": {"type": "str", "required": True},
    "model": {"type": "str", "required": True},
    "tokenizer": {"type": "path", "required": True, "no_log": False},
    "api_key": {"type": "str", "default": "", "no_log": True},
    "ca_path": {"type": "path"},
    "profile": {
        "type": "str",
        "choices": ["baseline", "long_context", "multi_turn", "streaming", "batch"],
        "default": "baseline",
    },
    "recipe": {"type": "dict", "default": {}},
    "replicas": {"type": "int", "default": 1},
    "seed": {"type": "int", "default": 0},
    "timeout": {"type": "int", "default": 1800},
    "result_dir": {"type": "path"},
}


def measure(module: AnsibleModule, directory: str) -> dict[str, Any]:
    """Run the client, unless in check mode, and return what the module returns."""
    p = module.params
    one = recipe(p["profile"], p["recipe"])
    load = one.load(p["replicas"])
    client = runs.Client(p["env"].rstrip("/"), p["tokenizer"])
    client.check()
    version = installed_version(client.env)
    # what follows a + is the build, such as cu129 or cpu: the client is the same
    if p["version"] and version.partition("+")[0] != p["version"].partition("+")[0]:
        raise runs.BenchmarkError(
            f"{client.env} holds vLLM {version or 'of no version'}, and {p['version']} serves: give its environment"
        )
    runs.check_served(Replica(p["url"], p["api_key"], ca_path=p["ca_path"]), p["model"], load)
    seed = p["seed"] or int(time.time())
    asked = runs.command(client, p["url"], p["model"], load, seed, directory)
    told = {"recipe": one.data(), "recipe_digest": one.digest(), "replicas": p["replicas"]}
    told |= {"version": version, "seed": seed, "command": asked}
    if module.check_mode:
        return {"msg": f"{load.requests} requests would be asked of {p['url']}", "skipped": True, **told}
    ran = runs.run(asked, directory, p["api_key"], p["ca_path"], p["timeout"])
    found = figures(ran.document, load)
    told |= {"figures": found, "doubts": doubts(ran, load, found), "client_cpu_share": ran.cpu_share}
    return {"msg": f"{p['url']}: {found['completed']} answers, {found['output_throughput']:g} tokens a second", **told}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    kept = module.params["result_dir"]
    directory = kept or tempfile.mkdtemp(prefix="llmops-benchmark-", dir=module.tmpdir)
    try:
        if kept and not module.check_mode:
            Path(kept).mkdir(parents=True, exist_ok=True)
        module.exit_json(changed=False, **measure(module, directory))
    except (LlmopsError, OSError) as problem:
        module.fail_json(msg=str(problem))
    finally:
        if not kept:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
