"""The manifests of infra/kubernetes and the container's recipe: house invariants, held against the code's settings.

Whether they fit Kubernetes' and KubeRay's schemas is checked by hand (docs/kubernetes.md says how): those are larger
than everything else here together.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, cast

import pytest
import yaml

from graphs.options import ProdOptions
from services.config import GatewayConfig
from services.config_capacity import DrainConfig, ScaleConfig, Tier
from services.experts.drain_rule import SHUTDOWN_MARGIN_S
from services.gateway.deployment import SHUTDOWN_MARGIN_S as GATEWAY_MARGIN_S
from services.telemetry.names import ALL_METRICS
from tests.architecture.sources import ROOT

KUBERNETES = ROOT / "infra" / "kubernetes"
CONTAINERFILE = (ROOT / "infra" / "container" / "Containerfile").read_text()
Manifest = dict[str, Any]


def manifests() -> list[Manifest]:
    files = [path for path in sorted(KUBERNETES.rglob("*.yaml")) if path.name != "kustomization.yaml"]
    return [document for path in files for document in yaml.safe_load_all(path.read_text())]


def the(kind: str, name: str) -> Manifest:
    (found,) = (m for m in manifests() if m["kind"] == kind and m["metadata"]["name"] == name)
    return found


def cluster() -> Manifest:
    return the("RayService", "expertmesh")["spec"]["rayClusterConfig"]


def templates() -> dict[str, Manifest]:
    """Every pod template, by its component."""
    found = [cluster()["headGroupSpec"]["template"]]
    found += [group["template"] for group in cluster()["workerGroupSpecs"]]
    found += [m["spec"]["template"] for m in manifests() if m["kind"] in ("Deployment", "StatefulSet")]
    return {template["metadata"]["labels"]["app.kubernetes.io/component"]: template for template in found}


def containers() -> Iterator[tuple[Manifest, Manifest]]:
    for template in templates().values():
        for container in template["spec"]["containers"]:
            yield template["spec"], container


def serve_config() -> Manifest:
    return yaml.safe_load(the("RayService", "expertmesh")["spec"]["serveConfigV2"])


def every_value(node: object) -> Iterator[object]:
    if isinstance(node, dict):
        for value in cast(dict[str, object], node).values():
            yield from every_value(value)
    elif isinstance(node, list):
        for value in cast(list[object], node):
            yield from every_value(value)
    else:
        yield node


@pytest.mark.parametrize("folder", ["base", "overlays/prod"])
def test_a_kustomization_names_every_file_beside_it(folder: str) -> None:
    here = KUBERNETES / folder
    named = yaml.safe_load((here / "kustomization.yaml").read_text())["resources"]
    files = {path.name for path in here.glob("*.yaml")} - {"kustomization.yaml"}
    assert {name for name in named if name.endswith(".yaml")} == files
    assert all((here / name).exists() for name in named)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kubectl_builds_the_overlay() -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / "overlays" / "prod")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    kinds = sorted(document["kind"] for document in yaml.safe_load_all(built.stdout))
    assert kinds == sorted(manifest["kind"] for manifest in manifests())


def test_no_image_has_a_tag_that_moves() -> None:
    images = [container["image"] for _, container in containers()]
    images += re.findall(r"^ARG BASE=(\S+)", CONTAINERFILE, re.MULTILINE)
    assert len(images) == 6
    for image in images:
        assert re.search(r":v?\d+\.\d+[\w.-]*$|@sha256:[0-9a-f]{64}$", image), image


def test_secrets_are_references() -> None:
    assert [m for m in manifests() if m["kind"] == "Secret"] == []
    for _, container in containers():
        for variable in container.get("env", ()):
            if re.search("PASSWORD|SECRET|TOKEN", variable["name"]):
                assert "value" not in variable and "secretKeyRef" in variable["valueFrom"], variable["name"]
            else:
                assert not re.search(r"://[^$@]*:[^$@]+@", str(variable.get("value", ""))), variable["name"]
    words = " ".join(str(value) for value in every_value(manifests()))
    assert not re.search(r"\bem-[A-Za-z0-9]{8,}|BEGIN [A-Z ]*PRIVATE KEY", words)
    assert "COPY . " not in CONTAINERFILE and "keys" not in re.findall(
        r"^COPY .*", CONTAINERFILE, re.MULTILINE
    )


def test_pods_fit_the_restricted_standard() -> None:
    assert (
        the("Namespace", "expertmesh")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
    for pod, container in containers():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(pod)
        allowed = {"emptyDir", "secret", "persistentVolumeClaim"}
        assert all(allowed & volume.keys() for volume in pod.get("volumes", ()))


def test_the_image_has_the_user_of_the_pods_and_the_ports_of_the_settings() -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", CONTAINERFILE, re.MULTILINE)
    for component, template in templates().items():
        if component != "valkey":
            context = template["spec"]["securityContext"]
            assert (str(context["runAsUser"]), str(context["runAsGroup"])) == user
    defaults = ProdOptions.model_validate({"http_port": 8000, "grpc_port": 9000})
    wanted = {"http": GatewayConfig().http_port, "grpc": GatewayConfig().grpc_port}
    assert wanted == {"http": defaults.http_port, "grpc": defaults.grpc_port}
    assert f"EXPOSE {wanted['http']} {wanted['grpc']}\n" in CONTAINERFILE
    gateway = templates()["gateway"]["spec"]["containers"][0]
    assert {port["name"]: port["containerPort"] for port in gateway["ports"]} == wanted
    service = the("Service", "expertmesh-gateway")["spec"]
    assert {port["name"]: port["port"] for port in service["ports"]} == wanted
    assert {port["targetPort"] for port in service["ports"]} == wanted.keys()
    clients = the("NetworkPolicy", "expertmesh-clients")["spec"]["ingress"][0]["ports"]
    assert {port["port"] for port in clients} == set(wanted.values())


def test_a_pod_lives_longer_than_its_drain() -> None:
    drain = DrainConfig()
    ends_s = drain.drain_seconds + max(SHUTDOWN_MARGIN_S, GatewayConfig().drain_s + GATEWAY_MARGIN_S)
    for component, template in templates().items():
        if component in ("head", "valkey"):
            continue
        pod = template["spec"]
        assert pod["terminationGracePeriodSeconds"] > ends_s, component
        hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert hook == ["python", "-m", "services.capacity.pod_drain"]


def test_the_graph_gets_options_that_it_has_and_finds_nodes_with_its_labels() -> None:
    config = serve_config()
    assert config["proxy_location"] == "Disabled"  # the gateways have its port
    (application,) = config["applications"]
    assert application["import_path"] == "graphs:prod"
    options = ProdOptions.model_validate(application["args"])
    assert options.by_labels and options.remote_gpus and options.host == "0.0.0.0"
    groups = {group["groupName"]: group for group in cluster()["workerGroupSpecs"]}
    assert groups["gateway"]["labels"]["expertmesh.io/ingress"] == "true"
    assert groups["gateway"]["replicas"] == options.gateways
    assert cluster()["headGroupSpec"]["labels"]["expertmesh.io/tier"] == Tier.HEAD
    elastic = the("ScaledObject", "experts-spot")["spec"]
    assert options.groups == groups["experts-vip"]["replicas"] + elastic["maxReplicaCount"]
    (words,) = templates()["experts-spot"]["spec"]["containers"][0]["args"]
    assert f"expertmesh.io/tier={Tier.SPOT}," in words
    assert groups["experts-vip"]["labels"]["expertmesh.io/tier"] == Tier.VIP
    assert cluster()["rayVersion"] == re.findall(
        r"^ray==(\S+)", (ROOT / "requirements" / "cpu.txt").read_text(), re.MULTILINE
    )[0].rstrip(" \\")


def test_a_group_s_gpus_are_in_one_pod() -> None:
    options = ProdOptions.model_validate(serve_config()["applications"][0]["args"])
    for component in ("experts-vip", "experts-spot"):
        limits = templates()[component]["spec"]["containers"][0]["resources"]["limits"]
        assert int(limits["nvidia.com/gpu"]) == options.shards * options.tensor_parallel
    words = templates()["experts-spot"]["spec"]["containers"][0]["args"][0]
    assert f"--num-gpus={options.shards * options.tensor_parallel} " in words


def test_one_thing_sizes_a_pool() -> None:
    assert cluster()["enableInTreeAutoscaling"] is False
    for group in cluster()["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
    scaled = the("ScaledObject", "experts-spot")["spec"]["scaleTargetRef"]
    target = the(scaled["kind"], scaled["name"])
    assert target["apiVersion"] == scaled["apiVersion"] and "replicas" not in target["spec"]
    assert [m["kind"] for m in manifests() if m["kind"] == "HorizontalPodAutoscaler"] == []


def test_the_scaler_asks_for_a_metric_of_ours_and_is_as_calm_as_the_settings() -> None:
    scale, spec = ScaleConfig(), the("ScaledObject", "experts-spot")["spec"]
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    (trigger,) = spec["triggers"]
    used = set(re.findall(r"expertmesh_\w+", trigger["metadata"]["query"]))
    assert used and used <= {metric.name for metric in ALL_METRICS}
    assert float(trigger["metadata"]["threshold"]) == scale.target_load
    assert behaviour["scaleUp"]["stabilizationWindowSeconds"] == scale.scale_out_hold_s
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] == scale.scale_in_hold_s
    assert behaviour["scaleDown"]["policies"][0]["value"] == scale.max_drains_at_once


def test_the_operator_gets_the_rules_that_are_tested() -> None:
    rules = yaml.safe_load((ROOT / "infra" / "prometheus" / "expertmesh.rules.yml").read_text())
    assert the("PrometheusRule", "expertmesh")["spec"] == rules


def test_scrapes_have_the_name_that_the_rules_ask_for() -> None:
    monitor = the("ServiceMonitor", "expertmesh-gateway")["spec"]
    service = the("Service", "expertmesh-gateway")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    job = service["metadata"]["name"]  # the operator's job label, where none is set
    assert "jobLabel" not in monitor and f'up{{job="{job}"}}' in str(the("PrometheusRule", "expertmesh"))


def test_selectors_find_pods() -> None:
    labels = [template["metadata"]["labels"] for template in templates().values()]
    selectors = [m["spec"]["selector"] for m in manifests() if m["kind"] == "Service"]
    selectors += [
        m["spec"]["selector"]["matchLabels"] for m in manifests() if m["kind"] == "PodDisruptionBudget"
    ]
    selectors += [
        m["spec"]["podSelector"]["matchLabels"]
        for m in manifests()
        if m["kind"] == "NetworkPolicy" and m["spec"]["podSelector"]
    ]
    assert len(selectors) == 13
    for selector in selectors:
        assert any(selector.items() <= found.items() for found in labels), selector


def test_volumes_and_named_ports_exist() -> None:
    for pod, container in containers():
        volumes = {volume["name"] for volume in pod.get("volumes", ())} | {"data"}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        ports = {port["name"] for port in container.get("ports", ())}
        for probe in (container["readinessProbe"], container["livenessProbe"]):
            (way,) = (probe[way] for way in ("httpGet", "tcpSocket", "exec") if way in probe)
            assert "command" in way or isinstance(way["port"], int) or way["port"] in ports
    assert templates()["gateway"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_default_is_that_nothing_is_let_in_or_out() -> None:
    spec = the("NetworkPolicy", "expertmesh-nothing-else")["spec"]
    assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
