#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: llm_model
version_added: 0.1.0
short_description: Put a model revision on disk, whole or not at all
description:
  - Brings the files of a model to C(<root>/<name>/<revision>/), which nothing changes afterwards.
  - The files are written aside, checked (C(safetensors) headers against file lengths, shards against the index, the
    source's own C(SHA256SUMS) where it has one, weights at all), checksummed to C(SHA256SUMS), and become visible by
    one rename. Killed at any moment, it leaves no revision that looks whole and is not.
extends_documentation_fragment:
  - llmops.vllm.attributes
options:
  name:
    description: Name of the model, as a directory.
    type: str
    required: true
  revision:
    description:
      - The pinned revision. 40 hexadecimal digits of a commit for a hub repository, a label for any other source.
    type: str
    required: true
  source:
    description:
      - C(hf://organisation/repository), a hub repository.
      - C(https://mirror/directory) or C(http://mirror/directory), a directory whose C(SHA256SUMS) names all files. Any
        revision that was staged by this module is one.
      - C(s3://bucket/directory) or C(gs://bucket/directory), the same in a bucket.
      - C(file:///directory), a directory or mount on this host.
      - C(controller:///directory), a directory on the controller, whose files the role C(llm_model) copies to the
        directory RV(transfer) that the first call returns.
      - Required with O(state=present).
    type: str
  root:
    description: Directory below which models lie.
    type: path
    default: /srv/llm-models
  move:
    description:
      - Take the source directory itself instead of a copy. It must lie on the same file system.
      - When the revision is refused, the directory is given back.
    type: bool
    default: false
  hub_command:
    description: The C(hf) command that downloads from a hub, usually that of a vLLM environment.
    type: str
    default: hf
  hub_token:
    description: Access token of the hub. Handed over by environment, never on a command line.
    type: str
  hub_endpoint:
    description: Address of a mirror of the hub.
    type: str
  include:
    description: Patterns of files to download from a hub, a mirror or a bucket. Empty means all.
    type: list
    elements: str
    default: []
  exclude:
    description: Patterns of files not to download.
    type: list
    elements: str
    default: []
  sha256sums:
    description:
      - File names and the SHA-256 that they must have. Files that are not named are not compared.
      - A C(SHA256SUMS) in the source is compared in any case.
    type: dict
    default: {}
  weights:
    description:
      - Whether a model must hold weights. V(false) is for one that is served with C(load-format) C(dummy), whose
        weights vLLM makes up.
    type: bool
    default: true
    version_added: 0.2.0
  reader:
    description: User who must be able to read the files. Checked as that user.
    type: str
  size_bytes:
    description:
      - Size of a C(controller://) source, for the check of free space. The size of other sources is found out.
    type: int
    default: 0
  min_free_bytes:
    description: Bytes that must stay free on the file system beyond what the model needs.
    type: int
    default: 1073741824
  mirror_headers:
    description: Headers for a mirror, such as C(Authorization). They do not go to where it redirects.
    type: dict
    default: {}
    version_added: 0.2.0
  bucket_command:
    description:
      - The command that reads a bucket, C(aws), C(gcloud), C(gsutil) or C(rclone), with or without its path. Empty
        means C(aws) for C(s3://) and C(gcloud) for C(gs://).
      - For C(rclone) the remote has the name of the scheme, C(s3) or C(gs).
    type: str
    default: ""
    version_added: 0.2.0
  bucket_environment:
    description: Environment of that command besides that of the module, such as C(AWS_ENDPOINT_URL).
    type: dict
    default: {}
    version_added: 0.2.0
  bucket_secrets:
    description: The same for what nobody may see, such as C(AWS_SECRET_ACCESS_KEY).
    type: dict
    default: {}
    version_added: 0.2.0
  peers:
    description:
      - Hosts that serve the revision (M(llmops.vllm.llm_model_peer)), tried in this order before the source. When none
        of them can, a warning says why, and the source is asked.
    type: list
    elements: dict
    default: []
    version_added: 0.2.0
    suboptions:
      url:
        description: Address that the peer told.
        type: str
        required: true
      token:
        description: Token that the peer told.
        type: str
        required: true
  peers_sums:
    description: The RV(sums_sha256) of the revision, as a peer told it. What peers send is refused when it is another.
    type: str
    default: ""
    version_added: 0.2.0
  parallel:
    description: Files brought at the same time.
    type: int
    default: 4
    version_added: 0.2.0
  bandwidth_bytes_per_second:
    description: Bytes a second that may come from a mirror or a bucket. V(0) is no limit. A hub's command knows none.
    type: int
    default: 0
    version_added: 0.2.0
  timeout:
    description:
      - Seconds after which a download, or a wait for another run that stages the same, is given up.
      - What was downloaded stays, and the next run goes on with it.
    type: int
    default: 14400
  verify:
    description:
      - How a revision that is there is checked. V(size) compares the list of files, the lengths of the weights with
        their headers, and the checksums of the other files up to 64 MiB. V(sha256) reads every byte, V(none) trusts it.
    type: str
    choices: [none, size, sha256]
    default: size
  state:
    description: Whether the revision should be there.
    type: str
    choices: [present, absent]
    default: present
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Bring a pinned revision from the hub
  llmops.vllm.llm_model:
    name: llama-8b
    source: hf://meta-llama/Llama-3.1-8B-Instruct
    revision: 0e9e39f249a16976918f6564b8830bc894c89659
    hub_command: /opt/vllm/env/0.32.0-1a2b3c4d/bin/hf
    reader: vllm

- name: Bring it from a network mount
  llmops.vllm.llm_model:
    name: llama-8b
    source: file:///mnt/models/llama-8b
    revision: "2026-11-01"

- name: Read every byte of a revision that is there, as after a fault of the disk
  llmops.vllm.llm_model:
    name: llama-8b
    source: file:///mnt/models/llama-8b
    revision: "2026-11-01"
    verify: sha256

- name: Remove a revision that nothing serves any more
  llmops.vllm.llm_model:
    name: llama-8b
    revision: "2026-10-01"
    state: absent
"""

RETURN = r"""
path:
  description: Directory of the revision.
  type: str
  returned: always
  sample: /srv/llm-models/llama-8b/0e9e39f249a16976918f6564b8830bc894c89659
files:
  description: Names of its files.
  type: list
  elements: str
  returned: when it is there
size_bytes:
  description: Their size together, in bytes.
  type: int
  returned: when it is there
sums_sha256:
  description: SHA-256 of its C(SHA256SUMS), which stands for the whole content.
  type: str
  returned: when it is there
peer:
  description: Whether the revision came from a peer.
  type: bool
  returned: when it did
transfer:
  description: Directory into which the caller must copy the files of a C(controller://) source before it calls again.
  type: str
  returned: when such a revision is not there yet
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._model import store as model_store


def main() -> None:
    """Spec, call, exit."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "revision": {"type": "str", "required": True},
            "source": {"type": "str"},
            "root": {"type": "path", "default": "/srv/llm-models"},
            "move": {"type": "bool", "default": False},
            "hub_command": {"type": "str", "default": "hf"},
            "hub_token": {"type": "str", "no_log": True},
            "hub_endpoint": {"type": "str"},
            "include": {"type": "list", "elements": "str", "default": []},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "sha256sums": {"type": "dict", "default": {}},
            "weights": {"type": "bool", "default": True},
            "reader": {"type": "str"},
            "size_bytes": {"type": "int", "default": 0},
            "min_free_bytes": {"type": "int", "default": 1 << 30},
            "mirror_headers": {"type": "dict", "default": {}, "no_log": True},
            "bucket_command": {"type": "str", "default": ""},
            "bucket_environment": {"type": "dict", "default": {}},
            "bucket_secrets": {"type": "dict", "default": {}, "no_log": True},
            "peers": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "url": {"type": "str", "required": True},
                    "token": {"type": "str", "required": True, "no_log": True},
                },
            },
            "peers_sums": {"type": "str", "default": ""},
            "parallel": {"type": "int", "default": 4},
            "bandwidth_bytes_per_second": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 14400},
            "verify": {"type": "str", "choices": ["none", "size", "sha256"], "default": "size"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ["source"])],
        supports_check_mode=True,
    )
    wanted = module.params["state"] == "present"
    names = {field.name for field in dataclasses.fields(model_store.Request)}
    options = {name: value for name, value in module.params.items() if name in names and value is not None}
    request = model_store.Request(**options)
    before = request.path.exists()
    act = model_store.present if wanted else model_store.absent
    try:
        result = act(request, check_mode=module.check_mode)
    except (LlmopsError, OSError) as error:
        module.fail_json(msg=str(error))
    else:
        for note in result.pop("notes", []):
            module.warn(note)
        module.exit_json(diff=model_store.difference(request, before, wanted), **result)


if __name__ == "__main__":
    main()
