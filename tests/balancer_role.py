"""The role llm_balancer without a host: its defaults, an example of its settings, its templates rendered."""

from __future__ import annotations

import pathlib
from typing import Any

import yaml
from ansible.plugins.filter.core import quote, to_bool
from ansible_collections.llmops.vllm.plugins.filter.balancer import FilterModule

from tests.role_templates import environment

ROLE = pathlib.Path(__file__).resolve().parent.parent / "roles" / "llm_balancer"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
CLIENTS = [
    {"name": "front", "key": "sk-front-0123456789.a+b"},
    {"name": "front", "key": "sk-front-new-0123456789"},
    {"name": "batch", "key": "sk-batch-0123456789", "pool": "big.Pool"},
]
POOLS = [
    {
        "name": "default",
        "replicas": [
            {"id": "gpu1/r0", "address": "192.0.2.21", "port": 8000},
            {"id": "gpu2/r0", "address": "2001:db8::22", "port": 8000},
        ],
    },
    {"name": "big.Pool", "replicas": [{"id": "gpu3/r0", "address": "192.0.2.23", "port": 8000}]},
]


def computed(value: Any) -> bool:
    """Tell whether a default is an expression."""
    return isinstance(value, str) and "{{" in value


def render(template: str, **changes: Any) -> str:
    """Render a template of the role with the example's settings and these changes."""
    made = environment(ROLE)
    made.filters.update({f"llmops.vllm.{name}": code for name, code in FilterModule().filters().items()})
    made.filters |= {"bool": to_bool, "quote": quote}
    values = {name: value for name, value in DEFAULTS.items() if not computed(value)}
    values |= {
        "__llm_balancer_lua_dir": "/etc/nginx/llm-lua",
        "__llm_balancer_view_dir": "/etc/nginx/llm-view",
        "__llm_balancer_secrets_dir": "/etc/nginx/llm/0123456789ab",
        "ansible_managed": "Ansible managed",
        "llm_balancer_backend_keys": ["backend-0123456789-0123456789-0123", "backend-second"],
        "llm_balancer_client_keys": CLIENTS,
        "llm_balancer_default_pool": "default",
        "llm_balancer_pools": POOLS,
    }
    return made.get_template(template).render(values | changes)
