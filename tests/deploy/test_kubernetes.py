"""The manifests: built by kustomize, validated by Kubernetes' schemas, and true to the service."""

import json
import os
import shutil
import subprocess
from itertools import chain
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from benchmarks.results_file import ROOT
from registry import MODEL_NAME
from serving.app import create_app
from serving.settings import Settings

VERSION = "1.34"  # of the schemas
OLDEST_MINOR = 24  # of kubectl, with kustomize 4.5
LABEL = "app.kubernetes.io/name"
CUSTOM = {"HTTPRoute", "InferenceService"}  # whose schemas no package of PyPI has
# Secrets and the key that are made by hand: docs/how-to/kubernetes.md.
BY_HAND = {"arithmetic-lm-reader", "arithmetic-lm-api-keys", "arithmetic-lm-trusted-key"}

Resource = dict[str, Any]


def build(name: str) -> list[Resource]:
    if shutil.which("kubectl") is None:
        assert "CI" not in os.environ, "kubectl is missing; .ci/run installs kubernetes-client"
        pytest.skip("kubectl is missing: apt-get install kubernetes-client")
    version = subprocess.check_output(["kubectl", "version", "--client", "--output=json"])
    minor = json.loads(version)["clientVersion"]["minor"]
    if int(minor.rstrip("+")) < OLDEST_MINOR:
        pytest.skip(f"kubectl 1.{minor}, such as Debian 12's, knows no `labels` in kustomizations")
    command = ["kubectl", "kustomize", f"deploy/kubernetes/{name}"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [*YAML(typ="safe").load_all(output)]


@pytest.fixture(scope="module")
def overlays() -> dict[str, list[Resource]]:
    return {name: build(name) for name in ("base", "canary", "kserve")}


@pytest.fixture(scope="module")
def resources(overlays: dict[str, list[Resource]]) -> dict[tuple[str, str], Resource]:
    """Return the base and the canary, which run side by side, by kind and name."""
    both = overlays["base"] + overlays["canary"]
    named = {(item["kind"], item["metadata"]["name"]): item for item in both}
    assert len(named) == len(both)
    return named


def pods(overlays: dict[str, list[Resource]]) -> list[Resource]:
    """Return the pod of each Deployment and InferenceService."""
    specs = []
    for item in chain.from_iterable(overlays.values()):
        if item["kind"] == "Deployment":
            specs.append(item["spec"]["template"]["spec"])
        elif item["kind"] == "InferenceService":
            scaling = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}
            predictor = item["spec"]["predictor"]
            specs.append({key: predictor[key] for key in predictor if key not in scaling})
    assert len(specs) == 3
    return specs


def test_the_schemas_accept_every_resource(overlays):
    kinds = set()
    for item in chain.from_iterable(overlays.values()):
        kinds.add(item["kind"])
        if item["kind"] not in CUSTOM:
            kubernetes_validate.validate(item, VERSION, strict=True)
    for spec in pods(overlays):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
        kubernetes_validate.validate(pod, VERSION, strict=True)
    assert kinds == CUSTOM | {
        *("ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy"),
        *("PodDisruptionBudget", "Service"),
    }


def test_the_schemas_reject_a_misspelled_field(overlays):
    deployment = next(item for item in overlays["base"] if item["kind"] == "Deployment")
    deployment = {**deployment, "spec": {**deployment["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(deployment, VERSION, strict=True)


def test_pods_meet_the_restricted_standard(overlays):
    for spec in pods(overlays):
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        assert f"--uid {spec['securityContext']['runAsUser']} " in dockerfile


def test_probes_and_variables_are_the_services(overlays):
    paths = create_app(Settings()).openapi()["paths"]
    variables = {name.upper() for name in Settings.model_fields}
    variables |= {"TRUSTED_KEY", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    for spec in pods(overlays):
        (container,) = spec["containers"]
        ports = {port.get("name"): port["containerPort"] for port in container["ports"]}
        assert [*ports.values()] == [8000]
        for probe in ("livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["path"] in paths
            assert container[probe]["httpGet"]["port"] in (*ports, 8000)
        assert {entry["name"] for entry in container["env"]} <= variables | {"PROTOCOL"}
    for item in overlays["base"] + overlays["canary"]:
        if item["kind"] == "ConfigMap":
            settings = Settings(**{name.lower(): value for name, value in item["data"].items()})
            assert settings.model_uri.startswith(f"models:/{MODEL_NAME}@")
            assert settings.drain_seconds < settings.grace_seconds < 20


def test_names_that_resources_refer_to_exist(resources, overlays):
    secrets = [
        entry["valueFrom"]["secretKeyRef"]["name"]
        for spec in pods(overlays)
        for entry in spec["containers"][0]["env"]
        if "valueFrom" in entry
    ]
    key = [spec["volumes"][-1]["configMap"]["name"] for spec in pods(overlays)]
    assert {*secrets, *key} == BY_HAND
    for (kind, name), item in resources.items():
        if kind == "Deployment":
            (source,) = item["spec"]["template"]["spec"]["containers"][0]["envFrom"]
            assert ("ConfigMap", source["configMapRef"]["name"]) in resources
        if kind == "HorizontalPodAutoscaler":
            assert item["spec"]["scaleTargetRef"]["name"] == name
            assert ("Deployment", name) in resources


def test_each_resource_selects_only_the_pods_of_its_own_version(resources):
    for (kind, name), item in resources.items():
        spec, selector = item.get("spec", {}), {LABEL: name}
        if kind == "Service":
            assert spec["selector"] == selector
        elif kind in ("Deployment", "PodDisruptionBudget"):
            assert spec["selector"]["matchLabels"] == selector
        elif kind == "NetworkPolicy":
            assert spec["podSelector"]["matchLabels"] == selector
        if kind == "Deployment":
            assert spec["template"]["metadata"]["labels"] == selector


def test_the_route_sends_the_candidate_a_tenth(resources):
    backends = resources["HTTPRoute", "arithmetic-lm"]["spec"]["rules"][0]["backendRefs"]
    assert {backend["name"]: backend["weight"] for backend in backends} == {
        "arithmetic-lm": 90,
        "arithmetic-lm-candidate": 10,
    }
    for backend in backends:
        ports = resources["Service", backend["name"]]["spec"]["ports"]
        assert backend["port"] in [port["port"] for port in ports]
    uris = {
        item["data"]["MODEL_URI"] for (kind, _), item in resources.items() if kind == "ConfigMap"
    }
    assert uris == {f"models:/{MODEL_NAME}@{alias}" for alias in ("Production", "Candidate")}


def test_kserve_asks_for_the_registered_model_by_the_v2_protocol(overlays):
    (service,) = overlays["kserve"]
    assert service["metadata"]["name"] == MODEL_NAME
    (container,) = service["spec"]["predictor"]["containers"]
    assert {"name": "PROTOCOL", "value": "v2"} in container["env"]
