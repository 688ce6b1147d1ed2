"""The files in `cluster/`: the autoscaler's against Ray's own schema, the RayJob's against what is known of its fields.

No schema of KubeRay comes with Ray, so the RayJob's fields are compared with a list of them.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from sdf import cli
from sdf.recipe import builtin_recipes

CLUSTER = Path(__file__).parents[2] / "cluster"

RAYJOB_FIELDS = {
    *("entrypoint", "runtimeEnvYAML", "jobId", "metadata", "submissionMode", "backoffLimit", "submitterConfig"),
    *("activeDeadlineSeconds", "preRunningDeadlineSeconds", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"),
    *("deletionStrategy", "suspend", "managedBy", "clusterSelector", "submitterPodTemplate", "rayClusterSpec"),
    *("entrypointNumCpus", "entrypointNumGpus", "entrypointResources"),
}
CLUSTER_FIELDS = {
    *("rayVersion", "authOptions", "gcsFaultToleranceOptions", "networkPolicy", "enableInTreeAutoscaling"),
    *("autoscalerOptions", "headServiceAnnotations", "suspend", "headGroupSpec", "workerGroupSpecs"),
}


def loaded(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


@pytest.fixture
def job() -> dict[str, Any]:
    return loaded("rayjob.yaml")["spec"]


@pytest.fixture
def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["rayClusterSpec"]
    return [each["template"]["spec"] for each in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]]


def parsed(command: str) -> dict[str, Any]:
    """The parameters of an `sdf` command, read by the command line itself; it raises for what it does not know."""
    program, *arguments = shlex.split(command)
    assert program == "sdf"
    group: Any = typer.main.get_command(cli.app)
    context = group.make_context("sdf", list(arguments), resilient_parsing=True)
    name, found, rest = group.resolve_command(context, list(arguments))
    return found.make_context(name, rest).params


def seconds(value: Any) -> int:
    assert isinstance(value, int) and not isinstance(value, bool)
    return value


def test_the_autoscaler_file_fits_rays_schema() -> None:
    config = loaded("autoscaler.yaml")
    spec = importlib.util.find_spec("ray")
    assert spec is not None and spec.origin is not None
    schema = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | {"workers": 4}, schema)
    assert config["head_node_type"] in config["available_node_types"]


def test_the_autoscaler_starts_ray_behind_a_token_and_with_our_programs_first() -> None:
    config = loaded("autoscaler.yaml")
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        started = [command for command in commands if "ray start" in command]
        assert len(started) == 1
        assert "RAY_AUTH_MODE=token" in started[0]
        assert "PATH=$HOME/sdf/bin:$PATH" in started[0]
        assert "0.0.0.0" not in started[0]
    assert "--num-cpus=0 " in config["head_start_ray_commands"][-1]


def test_the_job_has_known_fields_of_the_right_types(job: dict[str, Any]) -> None:
    whole = loaded("rayjob.yaml")
    assert (whole["apiVersion"], whole["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?", whole["metadata"]["name"])
    assert set(job) <= RAYJOB_FIELDS
    assert set(job["rayClusterSpec"]) <= CLUSTER_FIELDS
    assert job["submissionMode"] in {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"}
    assert job["shutdownAfterJobFinishes"] is True and "deletionStrategy" not in job
    assert seconds(job["ttlSecondsAfterFinished"]) >= 0
    for group in job["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_the_job_is_tried_again_and_its_command_resumes(job: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    given = parsed(job["entrypoint"])
    assert seconds(job["backoffLimit"]) > 0
    assert given["recipe"] in builtin_recipes()
    assert given["ray"] == "auto"
    shared = {each["name"] for each in pods[0]["volumes"] if "persistentVolumeClaim" in each}
    for pod in pods:
        mounts = {each["mountPath"] for each in pod["containers"][0]["volumeMounts"] if each["name"] in shared}
        assert any(given["out"].startswith(f"{mount}/") for mount in mounts)


def test_a_command_with_an_unknown_flag_is_noticed() -> None:
    with pytest.raises(Exception, match="--wrokers"):
        parsed("sdf run quickstart --out /corpora/x --wrokers 3")


def test_pods_live_longer_than_the_drain(job: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    drain = parsed(job["entrypoint"])["drain_timeout"]
    for pod in pods:
        env = {each["name"]: each["value"] for each in pod["containers"][0]["env"] if "value" in each}
        assert drain < seconds(int(env["RAY_JOB_STOP_WAIT_TIME_S"])) < seconds(pod["terminationGracePeriodSeconds"])


def test_the_head_offers_no_cpus_and_asks_for_a_token(job: dict[str, Any]) -> None:
    cluster = job["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["authOptions"]["secretName"]


def test_no_secret_stands_in_the_job(job: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    assert "runtimeEnvYAML" not in job
    for pod in pods:
        for each in pod["containers"][0]["env"]:
            assert not re.search(r"(KEY|TOKEN|SECRET|PASSWORD)$", each["name"]), f"{each['name']} must come as a file"


def test_what_the_pods_set_is_read_by_somebody(pods: list[dict[str, Any]]) -> None:
    for pod in pods:
        assert all(each["name"].startswith("RAY_") for each in pod["containers"][0]["env"])


def test_the_key_file_that_is_named_is_mounted_and_a_flag(pods: list[dict[str, Any]]) -> None:
    for name in ("rayjob.yaml", "README.md"):
        named = re.search(r"--key-file (\S+?)`", (CLUSTER / name).read_text())
        assert named is not None
        assert parsed(f"sdf run quickstart --out x --key-file {named[1]}")["key_file"] == named[1]
        for pod in pods:
            mounts = [each["mountPath"] for each in pod["containers"][0]["volumeMounts"] if each.get("readOnly")]
            assert any(named[1].startswith(f"{mount}/") for mount in mounts)


def test_nobody_is_root(pods: list[dict[str, Any]]) -> None:
    assert all(pod["securityContext"]["runAsNonRoot"] is True for pod in pods)
    assert all(not each["securityContext"]["allowPrivilegeEscalation"] for pod in pods for each in pod["containers"])
    users = re.findall(r"^USER (\S+)$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    assert users[-1:] == ["1000"]


def test_every_file_names_the_same_ray(job: dict[str, Any]) -> None:
    image = re.search(r"^ARG RAY_VERSION=(\S+)$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    launcher = re.search(r"ray\[default\]==([\d.]+)", (CLUSTER / "autoscaler.yaml").read_text())
    assert image is not None and launcher is not None
    assert image[1] == launcher[1] == job["rayClusterSpec"]["rayVersion"]
    assert version("ray").split(".")[0] == image[1].split(".")[0]
