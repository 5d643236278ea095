"""``llmops.vllm.check`` as the CI of an ops repository runs it: whole inventories, real ansible, no host."""

from __future__ import annotations

import datetime
import json
import pathlib
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests import certificates

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "inventories" / "example"


@dataclass
class Outcome:
    """What the run printed, its exit status and the document that it wrote."""

    code: int
    text: str
    document: dict[str, Any]

    @property
    def problems(self) -> dict[str, str]:
        """Messages by variable, with the hosts in front."""
        return {row["variable"]: f"{','.join(row['hosts'])}: {row['message']}" for row in self.document["problems"]}


class Repository:
    """An ops repository: the example inventory, certificates below ``files``, and what a case changes in them."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.inventory = directory / "fleet"
        shutil.copytree(EXAMPLE, self.inventory)
        self.set("hosts.yml", "all", "vars", ansible_connection="no.such.connection")  # would fail if it were used
        certificates.write(directory / "files", "llm.example.com", name="llm.example.com", days=90)

    def set(self, file: str, *place: str, **values: Any) -> None:
        """Set values in a YAML file of the inventory, below a place in it."""
        path = self.inventory / file
        content = yaml.safe_load(path.read_text()) if path.exists() else {}
        node = content
        for name in place:
            node = node.setdefault(name, {})
        node.update(values)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))

    def host(self, name: str, **values: Any) -> None:
        self.set(f"host_vars/{name}.yml", **values)

    def check(self, *options: str) -> Outcome:
        document = self.directory / "check.json"
        document.unlink(missing_ok=True)
        command = ["ansible-playbook", "-i", str(self.inventory), "llmops.vllm.check", *options]
        done = subprocess.run(
            [*command, "-e", "llmops_check_file=check.json"],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        assert document.exists(), done.stdout + done.stderr
        return Outcome(done.returncode, done.stdout + done.stderr, json.loads(document.read_text()))


@pytest.fixture
def repository(tmp_path: pathlib.Path) -> Repository:
    return Repository(tmp_path)


def test_example_is_clean(repository: Repository) -> None:
    done = repository.check()
    assert (done.code, done.document["problems"]) == (0, []), done.text
    assert (done.document["hosts"], done.document["replicas"], done.document["pools"]) == (6, 7, 2)
    assert "Inventory: 6 hosts, 7 replicas, 2 pools; 0 problems" in done.text
    assert "[WARNING]" not in done.text
    assert [text for text in done.document["not_checked"] if "config.json" not in text] == []


def test_sandbox_is_clean(tmp_path: pathlib.Path) -> None:
    command = ["ansible-playbook", "-i", str(ROOT / "inventories" / "sandbox"), "llmops.vllm.check"]
    secrets = {"backend_keys": ["b" * 43], "client_keys": [{"name": "demo", "key": "c" * 43}]}
    secrets |= {"monitoring_password": "d" * 32}
    (tmp_path / "secrets.json").write_text(json.dumps(secrets))
    certificates.write(tmp_path / "pki", "server", name="llm.example.com", days=30)
    done = subprocess.run(
        [*command, "-e", f"llmops_sandbox_dir={tmp_path}"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 hosts, 3 replicas, 1 pool; 0 problems" in done.stdout


# variable that the report names: words of its message (hosts, value, mend)
PLANTED = {
    "vllm_flags.max-nun-seqs": ["gpu1,gpu2,gpu3", "256", "unknown to vLLM 0.32.0", "max-num-seqs"],
    "vllm_flags.swap-space": ["gpu4", "removed after 0.17.1", "kv-offloading-size"],
    "vllm_flags.max-num-batched-tokens": ["gpu1,gpu2,gpu3", "'many'", "number"],
    "vllm_flags.kv-cache-dtype": ["gpu1,gpu2,gpu3", "'fp9'", "fp8"],
    "vllm_flags.max-model-len": ["gpu6", "200000", "131072 or less"],
    "vllm_replicas.gpus": ["gpu5", "GPU 0", "a and b", "its own GPU"],
    "vllm_replicas.port": ["gpu5", "port 8000", "a and b", "its own port"],
    "llmops_address": ["gpu3", "192.0.2.22", "give every host its own"],
    "llmops_profile": ["gpu5", "'realtime'", "known profiles are", "streaming"],
    "llmops_model_revision": ["gpu5", "'main'", "40 hexadecimal digits"],
    "llm_balancer_tls_certificate": ["lb1", "expired at", "renew it"],
    "llm_balancer_default_pool": ["lb1", "'chat'", "one of", "chat-h100"],
    "llm_balancer_port": ["lb2", "'https'", "a whole number"],
    "llmops_client_keys[1] (reports).expires": ["2026-01-31", "has passed", "add a new key under the same name"],
    "llmops_backend_keys[0]": ["9 characters", "32 to 512", "openssl rand -hex 32"],
    "vllm_restart_second": ["gpu4", "vllm_restart_seconds", "correct its name"],
}


def plant(repository: Repository) -> None:
    """Sixteen errors, each of its own kind."""
    pool = {"max-nun-seqs": 256, "max-num-batched-tokens": "many", "kv-cache-dtype": "fp9"}
    repository.set("group_vars/chat_h100/pool.yml", "vllm_flags", **pool)
    repository.set("group_vars/short_a100/pool.yml", vllm_restart_second=5)
    repository.set("group_vars/short_a100/pool.yml", "vllm_flags", **{"swap-space": 4})
    config = {"max_position_embeddings": 131072, "num_attention_heads": 64, "num_hidden_layers": 80}
    config["hidden_size"] = 8192
    (repository.directory / "files" / "config.json").write_text(json.dumps(config))
    repository.host("gpu6", llmops_model_config="files/config.json", vllm_flags={"max-model-len": 200000})
    repository.host("gpu3", llmops_address="192.0.2.22")
    price = {"llmops_price_usd_per_hour": 24}
    more = {
        "gpu5": {"ansible_host": "192.0.2.25", **price},
        "gpu6": {"ansible_host": "192.0.2.26", "llmops_pool": "long", **price},
    }
    repository.set("hosts.yml", "all", "children", "llm_servers", "hosts", **more)
    entries = [{"name": "a", "gpus": [0], "port": 8000}, {"name": "b", "gpus": [0], "port": 8000}]
    repository.host(
        "gpu5", llmops_pool="tests", llmops_profile="realtime", llmops_model_revision="main", vllm_replicas=entries
    )
    certificates.write(repository.directory / "files", "llm.example.com", name="llm.example.com", days=-3)
    repository.set("group_vars/llm_balancers/nginx.yml", llm_balancer_default_pool="chat")
    repository.host("lb2", llm_balancer_port="https")
    vault = {"vault_llmops_backend_key": "too-short"}
    repository.set("group_vars/all/vault.yml", **vault)
    keys = yaml.safe_load((repository.inventory / "group_vars/all/keys.yml").read_text())["llmops_client_keys"]
    keys[1]["expires"] = "2026-01-31"
    repository.set("group_vars/all/keys.yml", llmops_client_keys=keys)


def test_every_planted_error_is_named_and_nothing_besides(repository: Repository) -> None:
    plant(repository)
    done = repository.check()
    assert done.code == 2, done.text
    assert sorted(row["variable"] for row in done.document["problems"]) == sorted(PLANTED), done.text
    missing = {
        variable: [word for word in words if word not in done.problems[variable]] for variable, words in PLANTED.items()
    }
    assert {variable: words for variable, words in missing.items() if words} == {}, done.problems
    assert f"{len(PLANTED)} problems: mend the inventory. No host was touched." in done.text
    for secret in ("replace-me", "too-short"):
        assert secret not in done.text + json.dumps(done.document)


def test_site_run_stops_at_the_same_check(repository: Repository) -> None:
    repository.set("hosts.yml", "all", "vars", ansible_connection="ssh")
    repository.set("group_vars/short_a100/pool.yml", "vllm_flags", **{"swap-space": 4})
    command = ["ansible-playbook", "-i", str(repository.inventory), "llmops.vllm.site"]
    done = subprocess.run(command, cwd=repository.directory, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "gpu4: vllm_flags.swap-space is 4" in done.stdout
    assert "UNREACHABLE" not in done.stdout, "a host was connected to"


def test_limit_changes_nothing_about_what_is_checked(repository: Repository) -> None:
    """A play that matches no host would end green."""
    repository.set("group_vars/short_a100/pool.yml", "vllm_flags", **{"swap-space": 4})
    done = repository.check("--limit", "gpu1")
    assert (done.code, list(done.problems)) == (2, ["vllm_flags.swap-space"]), done.text


def test_empty_inventory_is_no_good_one(repository: Repository) -> None:
    shutil.rmtree(repository.inventory)
    repository.inventory.mkdir()
    (repository.inventory / "hosts.yml").write_text("all:\n")
    done = repository.check()
    assert (done.code, list(done.problems)) == (2, ["llmops_server_group"]), done.text


def test_peculiar_but_good_inventory_is_clean(repository: Repository) -> None:
    racks = {"rack_a": {"hosts": {"gpu1": None, "gpu4": None}}, "rack_b": {"hosts": {"gpu2": None, "lb1": None}}}
    repository.set("hosts.yml", "all", "children", **racks)
    repository.set("hosts.yml", "all", "hosts", localhost={"ansible_connection": "ssh"})
    repository.set("hosts.yml", "all", "vars", ansible_connection="ssh")
    own = {"llmops_backup_name": "backup-{{ item }}", "llmops_ticket": "{{ change_ticket }}"}
    repository.set("group_vars/all/own.yml", **own)
    repository.host("gpu1", vllm_wheel_dir="/srv/{{ ansible_facts['distribution_release'] }}", vllm_gpus="{{ 4 * 2 }}")
    keys = yaml.safe_load((repository.inventory / "group_vars/all/keys.yml").read_text())["llmops_client_keys"]
    keys[0]["expires"] = datetime.date.today() + datetime.timedelta(days=90)  # YAML's own kind of date
    repository.set("group_vars/all/keys.yml", llmops_client_keys=keys)
    done = repository.check("--tags", "start")
    assert (done.code, done.document["problems"]) == (0, []), done.text
    assert [text for text in done.document["not_checked"] if text.startswith("vllm_wheel_dir of gpu1: it follows from")]


def test_group_names_belong_on_the_command_line(repository: Repository) -> None:
    """A play looks for its hosts before it knows variables of any."""
    repository.set("group_vars/all/model.yml", llmops_server_group="llm_servers")
    done = repository.check()
    assert (done.code, list(done.problems)) == (2, ["llmops_server_group"]), done.text
    assert "give -e llmops_server_group=llm_servers" in done.problems["llmops_server_group"]
    assert repository.check("-e", "llmops_server_group=llm_servers").code == 0


def test_damaged_certificate_and_key_that_is_not_there(repository: Repository) -> None:
    files = repository.directory / "files"
    certificate = (files / "llm.example.com.crt").read_text()
    (files / "llm.example.com.crt").write_text(certificate.replace("BAMC", "BAXX").replace("MII", "MIX", 1))
    (files / "llm.example.com.key").unlink()
    done = repository.check()
    assert [text for text in done.document["not_checked"] if "the key of lb1: llm_balancer_tls_key is no file" in text]
    told = json.dumps(done.document)
    assert "cannot read them" in told or "damaged CERTIFICATE" in told, done.text


def test_balancers_without_replicas(repository: Repository) -> None:
    repository.set("group_vars/llm_servers/vllm.yml", vllm_state="absent")
    done = repository.check()
    assert list(done.problems) == ["vllm_state"], done.text
    assert "leaves no replica to the balancers" in done.problems["vllm_state"]


def test_group_without_hosts(repository: Repository) -> None:
    done = repository.check("-e", "llmops_server_group=no_such_group")
    assert done.code == 2
    assert "'no_such_group', which has no host, so the 2 host(s)" in done.problems["llmops_server_group"]


def test_variable_that_cannot_be_evaluated_is_named_without_its_consequences(repository: Repository) -> None:
    (repository.inventory / "group_vars/all/vault.yml").write_text("---\n{}\n")
    done = repository.check()
    vaulted = [
        "llm_monitoring_grafana_admin_password",
        "llm_monitoring_receivers",
        "llm_monitoring_watchdog_url",
        "llmops_backend_keys",
        "llmops_client_keys",
        "llmops_monitoring_password",
    ]
    assert sorted(done.problems) == vaulted, done.text
    assert "vault_llmops_backend_key" in done.problems["llmops_backend_keys"]


def test_certificate_that_ends_soon_is_a_problem_in_time(repository: Repository) -> None:
    certificates.write(repository.directory / "files", "llm.example.com", name="llm.example.com", days=10)
    assert repository.check().code == 0
    done = repository.check("-e", "llmops_check_min_days=14")
    assert done.code == 2
    assert "within 14 days: renew it" in done.problems["llm_balancer_tls_certificate"]


def test_model_that_does_not_fit_is_seen_in_its_config(repository: Repository) -> None:
    config = {
        "max_position_embeddings": 8192,
        "num_attention_heads": 36,
        "num_key_value_heads": 4,
        "num_hidden_layers": 16,
        "hidden_size": 4608,
        "torch_dtype": "bfloat16",
    }
    (repository.directory / "files" / "config.json").write_text(json.dumps(config))
    repository.set("group_vars/all/model.yml", llmops_model_config="files/config.json")
    repository.set("group_vars/short_a100/pool.yml", vllm_gpus=8, vllm_tensor_parallel_size=8)
    repository.set("group_vars/short_a100/pool.yml", "vllm_flags", **{"kv-cache-memory-bytes": 1048576})
    repository.host("gpu1", llmops_model_config="files/none.json")
    done = repository.check()
    assert sorted(done.problems) == [
        "llmops_model_config",
        "vllm_flags.kv-cache-memory-bytes",
        "vllm_flags.max-model-len",
        "vllm_tensor_parallel_size",
    ], done.text
    assert done.problems["llmops_model_config"].startswith("gpu1: is files/none.json, which is no readable config.json")
    assert "takes 8192 tokens: set 8192 or less" in done.problems["vllm_flags.max-model-len"]
    assert "set one of 1, 2, 4" in done.problems["vllm_tensor_parallel_size"]
