"""The check of a whole inventory: what it joins, what it leaves out, and the judges that no single host shows."""

from __future__ import annotations

import datetime
import functools
import json
import pathlib
from typing import Any

import pytest
import yaml
from ansible_collections.llmops.vllm.plugins.module_utils import _fleet
from ansible_collections.llmops.vllm.plugins.module_utils._check import balancer as check_balancer
from ansible_collections.llmops.vllm.plugins.module_utils._check import fleet as fleet_check
from ansible_collections.llmops.vllm.plugins.module_utils._check import keys as check_keys
from ansible_collections.llmops.vllm.plugins.module_utils._check import variables as check_variables
from ansible_collections.llmops.vllm.plugins.module_utils._check.problem import Problem
from ansible_collections.llmops.vllm.plugins.module_utils._check.report import Report, findings

ROLES = pathlib.Path(__file__).resolve().parents[2] / "roles"
LLAMA_8B = json.loads((ROLES.parent / "tests" / "data" / "model_shapes.json").read_text())["LLAMA_8B"]
NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.timezone.utc)
SERVER = {
    "llmops_address": "192.0.2.21",
    "llmops_model_name": "llama",
    "llmops_model_source": "hf://example/llama",
    "llmops_model_revision": "6f6073b423013f6a7d4d9f39144961bfbfbc386b",
    "llmops_pool": "chat",
    "llmops_backend_keys": ["k" * 40],
}
BALANCER = {
    "llmops_address": "192.0.2.11",
    "llmops_backend_keys": ["k" * 40],
    "llmops_client_keys": [{"name": "team-a", "key": "s" * 20}],
    "llm_balancer_tls_certificate": "files/llm.crt",
    "llm_balancer_tls_key": "files/llm.key",
}


@functools.cache
def specs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROLES.parent / "meta" / "collection_variables.yml").read_text())
    for path in ROLES.glob("*/meta/argument_specs.yml"):
        found |= yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"]
    return found


def checked(hosts: dict[str, dict[str, Any]], balancers: dict[str, dict[str, Any]], **options: Any) -> Report:
    broken, monitors = options.pop("broken", ()), options.pop("monitors", {})
    groups = {"llm_servers": list(hosts), "llm_balancers": list(balancers), "llm_monitors": list(monitors)}
    inventory = fleet_check.Inventory({**hosts, **balancers, **monitors}, groups, specs=specs(), **options)
    return fleet_check.check(inventory, NOW, broken=broken)


def test_a_good_fleet_is_silent() -> None:
    found = checked({"gpu1": SERVER}, {"lb1": BALANCER})
    assert found.ok, found.lines()
    assert found.lines()[0] == "Inventory: 2 hosts, 1 replica, 1 pool; 0 problems"


def test_what_many_hosts_have_in_common_is_one_line() -> None:
    hosts = {
        f"gpu{n}": {**SERVER, "llmops_address": f"192.0.2.{n}", "vllm_flags": {"swap-space": 4}} for n in range(1, 41)
    }
    found = checked(hosts, {"lb1": BALANCER})
    assert len(found.findings) == 1
    assert str(found.findings[0]).startswith("gpu1 and 39 more: vllm_flags.swap-space is 4")
    assert found.as_dict()["problems"][0]["hosts"] == list(hosts)


def test_flags_of_a_replica_are_named_by_its_entry() -> None:
    entries = [{"name": "a", "flags": {"max-num-seqs": "many"}}]
    found = checked({"gpu1": {**SERVER, "vllm_replicas": entries}}, {"lb1": BALANCER})
    assert [finding.variable for finding in found.findings] == ["vllm_replicas[a].flags.max-num-seqs"]


def test_null_takes_a_flag_of_the_profile_away_and_is_no_problem() -> None:
    found = checked({"gpu1": {**SERVER, "vllm_flags": {"shutdown-timeout": None}}}, {"lb1": BALANCER})
    assert found.ok, found.lines()


def test_flag_that_the_role_owns_names_the_variable_to_use() -> None:
    found = checked({"gpu1": {**SERVER, "vllm_flags": {"port": 9000}}}, {"lb1": BALANCER})
    assert [str(finding) for finding in found.findings] == [
        "gpu1: vllm_flags.port is set by the role: remove it there and use vllm_port, or port of an entry of "
        "vllm_replicas"
    ]


@pytest.mark.parametrize("version", ["0.32.0+mine", "9.9.9"])
def test_version_without_a_catalogue_is_said_not_to_be_checked(version: str) -> None:
    found = checked({"gpu1": {**SERVER, "vllm_version": version, "vllm_flags": {"no-such": 1}}}, {"lb1": BALANCER})
    assert found.ok, found.lines()
    assert [text for text in found.not_checked if version in text]


def test_key_that_a_server_does_not_accept() -> None:
    stranger = {**SERVER, "vllm_api_keys": ["x" * 40]}
    found = checked({"gpu1": stranger}, {"lb1": BALANCER})
    assert [finding.variable for finding in found.findings] == ["vllm_api_keys"]
    assert "first key that balancer lb1 sends" in found.findings[0].message


def test_replica_and_balancer_on_one_port_of_one_host() -> None:
    both = {**SERVER, **BALANCER, "vllm_port": 8081}
    found = checked({"one": both}, {"one": both})
    assert [finding.variable for finding in found.findings] == ["vllm_port"]
    assert "llm_balancer_status_port" in found.findings[0].message


def test_pools_that_nginx_cannot_tell_apart() -> None:
    second = {**SERVER, "llmops_address": "192.0.2.22", "llmops_pool": "Chat"}
    found = checked({"gpu1": SERVER, "gpu2": second}, {"lb1": BALANCER})
    assert [finding.variable for finding in found.findings] == ["llmops_pool"]
    assert "'Chat', and there is a pool 'chat'" in found.findings[0].message


def test_what_cannot_be_evaluated_has_no_consequences() -> None:
    server = {name: value for name, value in SERVER.items() if name != "llmops_backend_keys"}
    broken = [Problem("gpu1", "llmops_backend_keys", "", "cannot be evaluated (x is undefined): define it")]
    found = checked({"gpu1": server}, {"lb1": BALANCER}, broken=broken)
    assert [str(finding) for finding in found.findings] == [
        "gpu1: llmops_backend_keys cannot be evaluated (x is undefined): define it"
    ]


def test_of_two_opinions_on_one_value_the_first_counts() -> None:
    problems = [Problem("a", "x", "1", "is one: first"), Problem("a", "x", "1", "is one: second")]
    assert [finding.message for finding in findings(problems)] == ["is one: first"]


BROKEN = [
    Problem("gpu1", "vllm_flags", "", "cannot be evaluated (x is undefined): define it"),
    Problem("gpu1", "llmops_pool", "", "cannot be evaluated (x is undefined): define it"),
]


def test_broken_variable_of_one_host_hides_nothing_of_another() -> None:
    hosts = {name: {**SERVER, "llmops_address": f"192.0.2.2{name[-1]}"} for name in ("gpu1", "gpu2")}
    hosts["gpu2"]["vllm_flags"] = {"swap-space": 4}
    found = checked(hosts, {"lb1": BALANCER}, broken=BROKEN[:1])
    assert [finding.variable for finding in found.findings] == ["vllm_flags", "vllm_flags.swap-space"]


def test_unknown_pool_is_not_taken_for_a_missing_one() -> None:
    server = {name: value for name, value in SERVER.items() if name != "llmops_pool"}
    found = checked({"gpu1": server}, {"lb1": {**BALANCER, "llm_balancer_default_pool": "chat"}}, broken=BROKEN[1:])
    assert [finding.variable for finding in found.findings] == ["llmops_pool"]


def test_slip_on_one_variable_hides_no_other() -> None:
    slips = {**BALANCER, "llm_balancer_trie": 3, "llm_balancer_tries": 0}
    found = checked({"gpu1": SERVER}, {"lb1": slips})
    assert sorted(finding.variable for finding in found.findings) == ["llm_balancer_trie", "llm_balancer_tries"]


def test_key_of_one_host_alone_is_told_with_the_host() -> None:
    hosts = {name: {**SERVER, "llmops_address": f"192.0.2.2{name[-1]}"} for name in ("gpu1", "gpu2")}
    hosts["gpu2"]["llmops_backend_keys"] = ["short"]
    found = checked(hosts, {"lb1": BALANCER})
    assert [(finding.hosts, finding.variable) for finding in found.findings] == [(("gpu2",), "llmops_backend_keys[0]")]


SECRET = "do-not-print-this"


@pytest.mark.parametrize(
    "variables",
    [
        {"vllm_flags": {"api-key": SECRET}},
        {"vllm_flags": {"hf-token": [SECRET, SECRET], "hf-tokens": SECRET}},
        {"vllm_flags": [f"--api-key={SECRET}"]},
        {"vllm_replicas": [{"api_key": SECRET}]},
        {"vllm_replicas": {"a": {"flags": {"api-key": SECRET}}}},
        {"vllm_environment": [f"HF_TOKEN={SECRET}"]},
        {"vllm_api_keyss": [SECRET]},
        {"llm_balancer_tlskey": SECRET},
        {"vllm_api_keys": SECRET},
        {"vllm_api_keys": [SECRET]},
        {"llm_model_hub_tokens": SECRET},
        {"llmops_model_source": f"https://user:{SECRET}@example.com/x"},
    ],
    ids=str,
)
def test_no_report_tells_a_secret(variables: dict[str, Any]) -> None:
    found = checked({"gpu1": {**SERVER, **variables}}, {"lb1": BALANCER})
    assert not found.ok
    assert SECRET not in json.dumps(found.as_dict()) + "\n".join(found.lines())


WRONG_SHAPES = [None, [], {}, "text", 5, 10**30, 1.5, True, [[]], [{}], [None], {"a": None}, {1: "a", "B": "c"}]


@pytest.mark.parametrize("name", sorted(specs()))
def test_no_shape_of_any_variable_ends_the_check(name: str) -> None:
    for value in WRONG_SHAPES:
        for variables in ({**SERVER, name: value}, {**SERVER, "vllm_replicas": [{name.partition("_")[2]: value}]}):
            checked({"gpu1": variables}, {"lb1": {**BALANCER, name: value}}).lines()


@pytest.mark.parametrize("key", [*_fleet.REPLICA_KEYS, "other"])
def test_no_shape_of_an_entry_ends_the_check(key: str) -> None:
    for value in WRONG_SHAPES:
        checked({"gpu1": {**SERVER, "vllm_replicas": [{key: value}]}}, {"lb1": BALANCER}).lines()


def test_replica_over_pipeline_and_data_parallel_ranks_needs_their_product() -> None:
    def entry(gpus: int, **flags: int) -> dict[str, Any]:
        return {"gpus": list(range(gpus)), "tensor_parallel_size": 2, "flags": flags}

    for good in (entry(2), entry(4, **{"pipeline-parallel-size": 2}), entry(8, **{"data-parallel-size": 4})):
        found = checked({"gpu1": {**SERVER, "vllm_gpus": 8, "vllm_replicas": [good]}}, {"lb1": BALANCER})
        assert found.ok, found.lines()
    wrong = entry(2, **{"pipeline-parallel-size": 2})
    found = checked({"gpu1": {**SERVER, "vllm_gpus": 8, "vllm_replicas": [wrong]}}, {"lb1": BALANCER})
    assert [finding.variable for finding in found.findings] == ["vllm_tensor_parallel_size"]
    assert "uses 4 (tensor parallel size 2 x pipeline-parallel-size 2)" in found.findings[0].message


@pytest.mark.parametrize("version", ["0.32", "v0.32.0", "latest"])
def test_version_that_is_none(version: str) -> None:
    found = checked({"gpu1": {**SERVER, "vllm_version": version}}, {"lb1": BALANCER})
    assert [finding.variable for finding in found.findings] == ["vllm_version"]


@pytest.mark.parametrize(
    ("version", "torch", "refused"),
    [
        ("0.32.0", "", False),
        ("0.32.0", "auto", False),
        ("0.32.0", "cu130", False),
        ("0.32.0+cu129", "cu129", False),
        ("0.19.0", "cu128", False),
        ("0.32.0", "cu129", True),
        ("0.19.0", "cu130", True),
    ],
)
def test_torch_for_another_cuda_than_vllm_is_refused(version: str, torch: str, refused: bool) -> None:
    """As of vllm-project/vllm issue 44335: the process would end with its first import."""
    found = checked({"gpu1": {**SERVER, "vllm_version": version, "vllm_torch_backend": torch}}, {"lb1": BALANCER})
    told = [finding for finding in found.findings if finding.variable == "vllm_torch_backend"]
    assert bool(told) == refused
    assert not told or f"vllm_version: {version}+{torch}, with a lock" in told[0].message


def test_profile_of_an_entry_is_named_there() -> None:
    found = checked({"gpu1": {**SERVER, "vllm_replicas": [{"name": "a", "profile": "chat"}]}}, {"lb1": BALANCER})
    assert [finding.variable for finding in found.findings] == ["vllm_replicas[a].profile"]


@pytest.mark.parametrize(
    ("flags", "environment"),
    [
        ({"max-model-len": 262144, "hf-overrides": {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}}, {}),
        ({"max-model-len": 262144}, {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}),
    ],
)
def test_context_that_is_stretched_on_purpose(flags: dict[str, Any], environment: dict[str, str]) -> None:
    server = {**SERVER, "vllm_flags": flags, "vllm_environment": environment}
    found = checked({"gpu1": server}, {"lb1": BALANCER}, model_config=lambda replica: LLAMA_8B)
    assert found.ok, found.lines()


@pytest.mark.parametrize("change", [{"num_attention_heads": "64"}, {"text_config": [1]}, {"rope_scaling": "yarn"}])
def test_config_of_another_shape_is_not_checked_and_said_so(change: dict[str, Any]) -> None:
    config = {**LLAMA_8B, **change}
    server = {**SERVER, "vllm_flags": {"max-model-len": 4096}}
    found = checked({"gpu1": server}, {"lb1": BALANCER}, model_config=lambda replica: config)
    assert found.ok, found.lines()
    assert [text for text in found.not_checked if "cannot be understood" in text]


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"ansible_host": "8.8.4.4"}, True),
        ({"ansible_host": "2606:4700::1"}, True),
        ({"ansible_host": "8.8.4.4", "llmops_address": "8.8.4.4"}, False),
        ({"ansible_host": "8.8.4.4", "llmops_address": "10.0.0.4"}, False),
        ({"ansible_host": "10.0.0.4"}, False),
        ({"ansible_host": "lb1.example.com"}, False),
    ],
)
def test_nothing_but_clients_port_is_offered_to_the_internet_unless_it_is_meant(
    own: dict[str, str], told: bool
) -> None:
    balancer = {**{name: value for name, value in BALANCER.items() if name != "llmops_address"}, **own}
    found = [one for one in checked({"gpu1": SERVER}, {"lb1": balancer}).findings if "internet" in one.message]
    assert [(one.variable, one.hosts) for one in found] == [("llmops_address", ("lb1",))] * told


def test_certificate_is_judged_also_without_its_key() -> None:
    facts = {
        "not_after": "20260101000000Z",
        "not_before": "20250101000000Z",
        "public_key_fingerprints": {"sha256": "aa"},
        "subject_alt_name": ["DNS:llm.example.com"],
    }
    pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    files = {"certificate_pem": pem, "certificate": facts}
    found = checked({"gpu1": SERVER}, {"lb1": BALANCER}, certificate=lambda host: files)
    assert [finding.variable for finding in found.findings] == ["llm_balancer_tls_certificate"]
    assert [text for text in found.not_checked if text.startswith("the key of lb1")]


@pytest.mark.parametrize(
    ("days", "left", "wrong"), [(0, 90, False), (0, -1, True), (0, 0, False), (14, 10, True), (14, 20, False)]
)
def test_client_key_with_an_end(days: int, left: int, wrong: bool) -> None:
    day = NOW.date() + datetime.timedelta(days=left)
    keys = [{"name": "a", "key": "s" * 20, "expires": str(day)}]
    found = check_keys.client_problems("k", keys, pools=[], backend_keys=[], today=NOW.date(), min_days=days)
    assert [str(day) in problem.message for problem in found] == [True] * wrong


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("vllm_port", "8000", None),  # a spec accepts it
        ("vllm_port", "http", "is 'http': give a whole number"),
        ("vllm_purge", "perhaps", "is 'perhaps': give true or false"),
        ("vllm_firewall", "ufw", "is 'ufw': give one of nftables, none"),
        ("vllm_firewall_extra", {"a": 1}, "give a list"),
        ("vllm_replicas", "r0", "is 'r0': give a list"),
        ("vllm_system_packages", "libnuma1", "give a list"),  # the validator would make a list of it, the role not
        ("vllm_prefix", ["/opt"], "is a list: give a text"),
        ("vllm_stop_margin", 1.5, "is 1.5: give a whole number"),
        ("vllm_flags", None, "is null: give a mapping, or remove the line"),
        ("llmops_model_name", None, None),
        ("vllm_environment", ["HF_TOKEN=hf_secret"], "is a list: give a mapping"),
        ("vllm_environment", {1: "a", "B": "c"}, None),
        ("llmops_pools", ["a"], "did you mean 'llmops_pool'?"),
        ("vllm_gpu", 4, "is no variable of the collection (did you mean 'vllm_gpus'?): correct its name"),
        ("llmops_poool", "a", "did you mean 'llmops_pool'?"),
        ("vllm_dashboard_team", "a", None),  # an inventory's own
        ("other_role_port", "http", None),
    ],
)
def test_names_and_types_of_variables(name: str, value: Any, words: str | None) -> None:
    judge = check_variables.Judge(specs())
    found = [str(problem) for problem in (*judge.types("gpu1", {name: value}), *judge.names("gpu1", {name: value}))]
    if words is None:
        assert found == []
    else:
        assert len(found) == 1, found
        assert words in found[0]


def test_type_of_a_secret_is_told_without_the_secret() -> None:
    found = list(check_variables.Judge(specs()).types("lb1", {"llm_balancer_client_keys": "sk-secret"}))
    assert len(found) == 1
    assert "sk-secret" not in json.dumps([found[0].value, found[0].message])


def test_defaults_are_those_of_the_roles() -> None:
    told: dict[str, Any] = {}
    for path in ROLES.glob("*/defaults/main.yml"):
        told |= yaml.safe_load(path.read_text())
    assert {name: told[name] for name in _fleet.DEFAULTS} == _fleet.DEFAULTS
    assert {name: told[f"llm_balancer_{name}"] for name in check_balancer.DEFAULTS} == check_balancer.DEFAULTS


@pytest.mark.parametrize(
    ("variables", "variable", "words"),
    [
        (
            {"llmops_model_source": "ftp://host/x"},
            "llmops_model_source",
            "is 'ftp://host/x': begin it with one of hf://",
        ),
        (
            {"llmops_model_source": "s3://weights/x", "llm_model_bucket_command": "/usr/bin/s5cmd"},
            "llm_model_bucket_command",
            "is '/usr/bin/s5cmd', which does not read s3://weights/x: give aws or rclone",
        ),
        (
            {"llmops_model_source": "gs://weights/x", "llm_model_bucket_command": "aws"},
            "llm_model_bucket_command",
            "is 'aws', which does not read gs://weights/x: give gcloud or gsutil or rclone",
        ),
    ],
)
def test_source_that_cannot_be_read(variables: dict[str, Any], variable: str, words: str) -> None:
    found = checked({"gpu1": {**SERVER, "llmops_model_revision": "r1", **variables}}, {"lb1": BALANCER})
    assert [finding.variable for finding in found.findings] == [variable]
    assert words in found.findings[0].message


def test_one_revision_of_one_name_from_two_sources_on_one_host() -> None:
    entries = [
        {"name": "a", "gpus": [0], "model_source": "file:///mnt/x", "model_revision": "r1", "pool": "one"},
        {"name": "b", "gpus": [1], "model_source": "file:///mnt/x-fp8", "model_revision": "r1", "pool": "two"},
    ]
    host = {**SERVER, "vllm_gpus": 2, "vllm_replicas": entries}
    found = checked({"gpu1": host}, {"lb1": BALANCER})
    assert [finding.variable for finding in found.findings] == ["vllm_replicas[b].model_revision"]
    assert "gpu1/a has the same revision" in found.findings[0].message
    entries[1]["model_revision"] = "r1-fp8"
    assert checked({"gpu1": host}, {"lb1": BALANCER}).ok


ADAPTER = {"name": "support", "source": "hf://example/support-lora", "revision": "c" * 40}


def test_adapters_that_are_right() -> None:
    own = {"name": "r0", "adapters": [{**ADAPTER, "revision": "d" * 40}]}
    second = {**SERVER, "llmops_address": "192.0.2.22", "vllm_replicas": [own]}
    found = checked({"gpu1": {**SERVER, "llmops_adapters": [ADAPTER]}, "gpu2": second}, {"lb1": BALANCER})
    assert found.ok, found.lines()  # one host tries another revision


@pytest.mark.parametrize(
    ("variables", "variable", "words"),
    [
        ({"llmops_adapters": ["support"]}, "llmops_adapters", "is a list with other things: give a list of mappings"),
        ({"llmops_adapters": [{**ADAPTER, "rank": 8}]}, "llmops_adapters[0].rank", "known are name, source, revision"),
        ({"llmops_adapters": [{**ADAPTER, "name": "a=b"}]}, "llmops_adapters[0].name", "is 'a=b': clients call it so"),
        ({"llmops_adapters": [{**ADAPTER, "name": "llama"}]}, "llmops_adapters[0].name", "the model has"),
        ({"llmops_adapters": [ADAPTER, ADAPTER]}, "llmops_adapters[1].name", "another adapter or the model has"),
        ({"llmops_adapters": [{**ADAPTER, "source": "/x"}]}, "llmops_adapters[0].source", "begin it with one of hf://"),
        (
            {"llmops_adapters": [{**ADAPTER, "revision": "main"}]},
            "llmops_adapters[0].revision",
            "40 hexadecimal digits",
        ),
        (
            {"vllm_replicas": [{"name": "a", "adapters": [{**ADAPTER, "revision": ""}]}]},
            "vllm_replicas[a].adapters[0].revision",
            "40 hexadecimal digits",
        ),
        (
            {"llmops_adapters": [ADAPTER], "vllm_flags": {"lora_modules": ["x=/y"]}},
            "vllm_flags.lora-modules",
            "llmops_adapters sets it, too",
        ),
        (
            {
                "llmops_adapters": [{**ADAPTER, "source": "gs://weights/x", "revision": "r1"}],
                "llm_model_bucket_command": "aws",
            },
            "llm_model_bucket_command",
            "does not read gs://weights/x",
        ),
    ],
)
def test_adapters_that_are_wrong(variables: dict[str, Any], variable: str, words: str) -> None:
    found = checked({"gpu1": {**SERVER, **variables}}, {"lb1": BALANCER})
    assert [finding.variable for finding in found.findings] == [variable]
    assert words in found.findings[0].message


def test_adapters_of_a_pool_have_the_same_names() -> None:
    second = {**SERVER, "llmops_address": "192.0.2.22"}
    found = checked({"gpu1": {**SERVER, "llmops_adapters": [ADAPTER]}, "gpu2": second}, {"lb1": BALANCER})
    assert [finding.variable for finding in found.findings] == ["llmops_adapters"]
    assert "support on gpu1/r0, none on gpu2/r0" in found.findings[0].message


MONITOR = {
    "llmops_address": "192.0.2.41",
    "llmops_backend_keys": ["k" * 40],
    "llmops_client_keys": [{"name": "team-a", "key": "s" * 20}],
    "llmops_alertmanager_urls": ["https://192.0.2.41:9093"],
}
FLEET_OF_TWO = {name: {**SERVER, "llmops_address": f"192.0.2.2{name[-1]}"} for name in ("gpu1", "gpu2")}
ALL_OWN_METHODS = {"llm_monitoring_blackbox_install_method": "none", "llm_monitoring_blackbox_address": "[::1]:9115"}


@pytest.mark.parametrize(
    ("change", "variable", "words"),
    [
        (
            {"llmops_backend_keys": None},
            "llmops_backend_keys",
            ["no key", "gpu1 and 1 more answer", "LLMModelNotServed"],
        ),
        ({"llm_monitoring_backend_keys": []}, "llm_monitoring_backend_keys", ["no key", "the list of the servers"]),
        ({"llmops_backend_keys": ["z" * 40, "k" * 40]}, "llmops_backend_keys", ["a key", "gpu1 and 1 more answer"]),
        ({"llmops_client_keys": None}, "llmops_client_keys", ["no key", "lb1 answers", "llm_monitoring_service_key"]),
        ({"llm_monitoring_service_key": ""}, "llm_monitoring_service_key", ["no key", "LLMServiceDown"]),
        ({"llm_monitoring_service_key": "z" * 20}, "llm_monitoring_service_key", ["a key", "lb1 answers", "401"]),
        (
            {"llm_monitoring_service_key": "", "llm_monitoring_service_urls": ["https://llm.example.com/v1/models"]},
            "llm_monitoring_service_key",
            ["no key"],
        ),
    ],
)
def test_probes_that_would_be_answered_with_401(change: dict[str, Any], variable: str, words: list[str]) -> None:
    found = checked(FLEET_OF_TWO, {"lb1": BALANCER}, monitors={"mon1": {**MONITOR, **change}})
    assert [(finding.hosts, finding.variable) for finding in found.findings] == [(("mon1",), variable)]
    assert [word for word in words if word not in found.findings[0].message] == [], found.lines()
    assert not [key for key in "ksz" if key * 20 in json.dumps(found.as_dict())]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"llmops_backend_keys": ["k" * 40, "z" * 40]},  # the first is sent
        {"llm_monitoring_state": "absent", "llmops_backend_keys": None, "llmops_client_keys": None},
        {**ALL_OWN_METHODS, "llmops_backend_keys": None, "llmops_client_keys": None},  # it has keys of its own
        {"llm_monitoring_service_urls": [], "llmops_client_keys": None},
        # whoever answers there need not be a balancer of ours
        {"llm_monitoring_service_urls": ["https://llm.example.com/v1/models"], "llm_monitoring_service_key": "z" * 20},
    ],
)
def test_probes_that_are_let_in(change: dict[str, Any]) -> None:
    found = checked(FLEET_OF_TWO, {"lb1": BALANCER}, monitors={"mon1": {**MONITOR, **change}})
    assert found.ok, found.lines()


def test_server_with_a_key_of_its_own_refuses_probes_too() -> None:
    servers = {**FLEET_OF_TWO, "gpu2": {**FLEET_OF_TWO["gpu2"], "vllm_api_keys": ["x" * 40]}}
    found = checked(servers, {}, monitors={"mon1": MONITOR})
    assert [finding.variable for finding in found.findings] == ["llmops_backend_keys"]
    assert "a key that gpu2 answers with 401" in found.findings[0].message


@pytest.mark.parametrize("host", ["mon1", "gpu1", "lb1"])
def test_keys_that_cannot_be_evaluated_say_nothing_of_probes(host: str) -> None:
    fleet = {"gpu1": SERVER, "lb1": BALANCER, "mon1": MONITOR}
    names = ("llmops_backend_keys", "llmops_client_keys")
    fleet[host] = {name: value for name, value in fleet[host].items() if name not in names}
    broken = [Problem(host, name, "", "cannot be evaluated (x is undefined): define it") for name in names]
    monitors = {"mon1": fleet["mon1"]}
    found = checked({"gpu1": fleet["gpu1"]}, {"lb1": fleet["lb1"]}, monitors=monitors, broken=broken)
    assert [(finding.hosts, finding.variable) for finding in found.findings] == [((host,), name) for name in names]


@pytest.mark.parametrize(
    "name", sorted(name for name in specs() if "key" in name or name.startswith("llm_monitoring_"))
)
def test_no_shape_of_a_variable_of_monitoring_ends_the_check(name: str) -> None:
    for value in WRONG_SHAPES:
        checked({"gpu1": SERVER}, {"lb1": BALANCER}, monitors={"mon1": {**MONITOR, name: value}}).lines()


@pytest.mark.parametrize(
    ("balancer", "monitor", "told"),
    [
        ({}, {}, True),
        ({"llmops_alertmanager_urls": ["https://192.0.2.41:9093"]}, {}, False),
        ({}, {"llm_monitoring_state": "absent"}, False),  # nobody is alerted
        ({}, None, False),
    ],
)
def test_silences_that_nobody_is_asked_for_are_told(
    balancer: dict[str, Any], monitor: dict[str, Any] | None, told: bool
) -> None:
    monitors = {} if monitor is None else {"mon1": {**MONITOR, **monitor}}
    found = checked(FLEET_OF_TWO, {"lb1": {**BALANCER, **balancer}}, monitors=monitors)
    assert found.ok, found.lines()
    assert len([text for text in found.not_checked if "llmops_alertmanager_urls of lb1 is empty" in text]) == told
