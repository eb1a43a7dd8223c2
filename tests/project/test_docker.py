"""Images, Compose, Kubernetes and monitoring: valid, locked down, and consistent with the servers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from client.cli import parser
from server.secrets import ARGUMENTS, SERVER, make, triton_arguments
from sidecar.cli import parser as sidecar_parser
from sidecar.service.metrics import Meters

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
KUBERNETES = {
    path: list(yaml.safe_load_all(path.read_text())) for path in sorted((DOCKER / "kubernetes").glob("*.yaml"))
}
OBJECTS = [found for path, objects in KUBERNETES.items() if path.name != "kustomization.yaml" for found in objects]
DASHBOARD = json.loads((DOCKER / "grafana/unaligned.json").read_text())
RULES = yaml.safe_load((DOCKER / "prometheus/alerts.yaml").read_text())["groups"][0]["rules"]
IMAGES = ["client", "sidecar", "triton"]
PROGRAMS = Path(sys.executable).parent


def instructions(image: str) -> list[tuple[str, str]]:
    """Of an image's last stage."""
    text = re.sub(r"\\\n\s*", " ", (DOCKER / image / "Dockerfile").read_text())
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    stages = [number for number, (name, *_) in enumerate(lines) if name == "FROM"]
    return [(name, " ".join(rest)) for name, *rest in lines[stages[-1] :]]


def expressions() -> list[str]:
    """Every query of the dashboard and of the alerts."""
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*(query.replace("$__rate_interval", "5m") for query in queries), *(rule["expr"] for rule in RULES)]


def metrics(expression: str) -> set[str]:
    """The names of the metrics in a query."""
    found = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            found.add(node.name)
        for name in ("expr", "lhs", "rhs", "vs", "vector_selector"):
            if (child := getattr(node, name, None)) is not None:
                visit(child)
        for child in getattr(node, "args", None) or ():
            visit(child)

    visit(promql_parser.parse(expression))
    return found


def every_metric() -> set[str]:
    adapter = next(found for found in OBJECTS if found["kind"] == "ConfigMap")
    rules = yaml.safe_load(adapter["data"]["config.yaml"])["rules"]
    return set.union(*map(metrics, expressions())) | {rule["seriesQuery"].partition("{")[0] for rule in rules}


def containers() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every pod's specification with its only container."""
    specs = [found["spec"]["template"]["spec"] for found in OBJECTS if found["kind"] in ("Deployment", "Job")]
    return [(spec, spec["containers"][0]) for spec in specs]


def test_the_queries_name_metrics_that_there_are() -> None:
    families = Meters().registry.collect()
    side_car = {sample.name for family in families for sample in family.samples}
    asked = every_metric()
    assert {name for name in asked if name.startswith("refine_")} <= side_car
    # Triton's are compared with a running one in server_tests/test_L0_metrics.py.
    assert {name for name in asked if not name.startswith(("refine_", "nv_"))} == {"up"}
    assert len(asked) > 12


@pytest.mark.parametrize("image", IMAGES)
def test_the_dockerfile_is_clean(image: str) -> None:
    # DL3006, DL3007: the base is an argument, pinned where it is named. DL3013, DL3042: constraints.txt pins.
    command = [
        str(PROGRAMS / "hadolint"),
        "--ignore",
        "DL3006",
        "--ignore",
        "DL3013",
        str(DOCKER / image / "Dockerfile"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_is_not_roots_and_has_no_secret(image: str) -> None:
    steps = instructions(image)
    user = [value for name, value in steps if name == "USER"][-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert not [value for name, value in steps if name in ("COPY", "ADD", "ENV", "ARG") and "secret" in value.lower()]
    base = re.findall(r"^ARG \w+=(\S+)$", (DOCKER / image / "Dockerfile").read_text(), flags=re.MULTILINE)[0]
    assert re.fullmatch(r"(docker\.io/library|nvcr\.io)/\S+:\d+\.\d+\S*", base)


def test_the_images_are_made_of_what_is_in_the_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for image in IMAGES:
        text = re.sub(r"\\\n\s*", " ", (DOCKER / image / "Dockerfile").read_text())
        for line in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+)$", text, flags=re.MULTILINE):
            for source in line.split()[:-1]:
                assert any(source == name or source.startswith(f"{name}/") for name in allowed), source
                assert source.startswith("build/") or (ROOT / source).exists(), source


def test_tritons_image_has_no_backend_that_runs_python() -> None:
    text = (DOCKER / "triton/Dockerfile").read_text()
    assert "backends -mindepth 1 -maxdepth 1 ! -name onnxruntime -exec rm -rf" in text
    backends = {
        line.split('"')[1]
        for path in (ROOT / "model_repository").glob("*/config.pbtxt")
        for line in path.read_text().splitlines()
        if line.startswith("backend:")
    }
    assert backends == {"onnxruntime"}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    make(tmp_path / "secrets")
    return tmp_path / "secrets/server"


def entrypoint(tmp_path: Path, secrets: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    fake = tmp_path / "bin/tritonserver"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{fake.parent}:{os.environ['PATH']}", "SECRETS": str(secrets), "SETTINGS": str(ARGUMENTS)}
    script = str(DOCKER / "triton/entrypoint.sh")
    return subprocess.run([script, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_the_image_takes_the_settings_that_the_launcher_takes(tmp_path: Path, secrets: Path) -> None:
    done = entrypoint(tmp_path, secrets, "--model-repository=/models", "--log-info=a b")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*triton_arguments(secrets), "--model-repository=/models", "--log-info=a b"]


@pytest.mark.parametrize("name", SERVER)
def test_the_image_does_not_start_without_its_secrets(name: str, tmp_path: Path, secrets: Path) -> None:
    (secrets / name).unlink()
    done = entrypoint(tmp_path, secrets)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: cannot read the secret `{secrets / name}`: missing, empty or no permission\n"


def test_the_image_takes_no_token_that_is_two_options(tmp_path: Path, secrets: Path) -> None:
    (secrets / "token").write_text("a --b")
    error = f"error: invalid character in the secret `{secrets / 'token'}`: "
    assert entrypoint(tmp_path, secrets).stderr.startswith(error)


@pytest.mark.parametrize("script", ["triton/entrypoint.sh", "images.sh"])
def test_the_scripts_are_clean(script: str) -> None:
    done = subprocess.run(
        [str(PROGRAMS / "shellcheck"), str(DOCKER / script)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_side_cars_command_is_one() -> None:
    steps = dict(instructions("sidecar"))
    words = [*json.loads(steps["ENTRYPOINT"])[3:], *json.loads(steps["CMD"])]
    options = sidecar_parser().parse_args(words)
    assert (options.address, str(options.secrets)) == ("0.0.0.0", "/run/secrets/unaligned")
    assert {str(options.port), str(options.metrics_port)} == set(steps["EXPOSE"].split())


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_is_valid(name: str) -> None:
    command = [str(PROGRAMS / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(DOCKER / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_compose_is_locked() -> None:
    assert set(COMPOSE["services"]) == {"triton", "sidecar", "prometheus", "grafana", "client"}
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for volume in service["volumes"]:
            source, _, rest = volume.partition(":") if not volume.startswith("$") else ("", "", "")
            assert not source.startswith(("./", "../build")) or rest.endswith(":ro"), volume
            if source.startswith("./"):
                assert (DOCKER / source).exists(), volume
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).exists()


def test_prometheus_takes_its_files() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (of Prometheus) is not here; the queries are parsed all the same")
    config = str(DOCKER / "prometheus/prometheus.yaml")
    done = subprocess.run([promtool, "check", "config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_prometheus_scrapes_what_the_services_serve() -> None:
    jobs = yaml.safe_load((DOCKER / "prometheus/prometheus.yaml").read_text())["scrape_configs"]
    assert {target for job in jobs for target in job["static_configs"][0]["targets"]} == {"triton:8002", "sidecar:8004"}
    assert {job["job_name"] for job in jobs} == {"triton", "sidecar"}


def test_every_alert_says_what_it_is() -> None:
    for rule in RULES:
        assert rule["for"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].endswith(".")
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    for word in ("queue", "Batch size", "Latency", "occupancy", "Failed"):
        assert any(word in title for title in titles), word
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(titles)


@pytest.mark.parametrize("found", OBJECTS, ids=lambda found: f"{found['kind']}-{found['metadata'].get('name', '')}")
def test_kubernetes_takes_every_object(found: dict[str, Any]) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(found, "1.33", strict=True)


def test_kustomize_names_every_file() -> None:
    kustomization = KUBERNETES[DOCKER / "kubernetes/kustomization.yaml"][0]
    # A job is created when there is something to do, and the adapter's rules belong to another namespace.
    others = {"kustomization.yaml", "batch.yaml", "prometheus-adapter.yaml"}
    assert set(kustomization["resources"]) == {path.name for path in KUBERNETES} - others


def test_every_image_is_of_this_version() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert version
    kustomization = KUBERNETES[DOCKER / "kubernetes/kustomization.yaml"][0]
    tags = {image["newTag"] for image in kustomization["images"]}
    own = [service["image"] for service in COMPOSE["services"].values() if service["image"].startswith("unaligned/")]
    job = next(found for found in OBJECTS if found["kind"] == "Job")
    own.append(job["spec"]["template"]["spec"]["containers"][0]["image"])
    assert {image.partition(":")[2] for image in own} | tags == {version[1]}


def test_pods_are_locked() -> None:
    for spec, container in containers():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        locked = container["securityContext"]
        assert locked["readOnlyRootFilesystem"] is True
        assert locked["allowPrivilegeEscalation"] is False
        assert locked["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounts["secrets"] == {"name": "secrets", "mountPath": "/run/secrets/unaligned", "readOnly": True}
        assert set(mounts) == {volume["name"] for volume in spec["volumes"]}


def test_probes_ask_what_the_images_serve() -> None:
    exposed = {
        image: {int(port) for port in dict(instructions(image))["EXPOSE"].split()} for image in ("sidecar", "triton")
    }
    pages = (ROOT / "sidecar/service/pages.py").read_text()
    for _, container in containers()[:-1] if containers()[-1][1]["name"] == "client" else containers():
        if container["name"] == "client":
            continue
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert set(ports.values()) == exposed[container["name"]]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            ask = container[probe].get("httpGet") or container[probe]["tcpSocket"]
            assert ask["port"] in ports
            if container["name"] == "sidecar":
                assert f'case "{ask["path"]}"' in pages


def test_the_network_is_shut_but_for_what_is_named() -> None:
    policies = {found["metadata"]["name"]: found["spec"] for found in OBJECTS if found["kind"] == "NetworkPolicy"}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name in ("triton", "sidecar"):
        assert "Egress" not in policies[name]["policyTypes"]
    job = next(found for found in OBJECTS if found["kind"] == "Job")
    assert job["spec"]["template"]["metadata"]["labels"]["unaligned/client"] == "true"


def test_the_autoscalers_know_the_adapters_metrics() -> None:
    adapter = next(found for found in OBJECTS if found["kind"] == "ConfigMap")
    given = {rule["name"]["as"] for rule in yaml.safe_load(adapter["data"]["config.yaml"])["rules"]}
    scalers = [found["spec"] for found in OBJECTS if found["kind"] == "HorizontalPodAutoscaler"]
    assert {metric["pods"]["metric"]["name"] for spec in scalers for metric in spec["metrics"]} == given
    deployments = {found["metadata"]["name"] for found in OBJECTS if found["kind"] == "Deployment"}
    assert {spec["scaleTargetRef"]["name"] for spec in scalers} == deployments


def test_the_job_is_a_command_of_the_client() -> None:
    job = next(found for found in OBJECTS if found["kind"] == "Job")
    container = job["spec"]["template"]["spec"]["containers"][0]
    words = [word.replace("$(JOB_COMPLETION_INDEX)", "3") for word in container["args"]]
    options = parser().parse_args(words)
    assert options.resume
    assert options.shard == f"3/{job['spec']['completions']}"
