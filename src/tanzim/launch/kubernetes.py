"""A run as an Indexed Job of Kubernetes: one pod a machine, and a name by which they find the first."""

from __future__ import annotations

from tanzim.core.errors import ConfigError
from tanzim.core.records import Json
from tanzim.launch.config import KubernetesLaunch
from tanzim.launch.job import PORT, Job, train_command

WORK = "/work"  # where the claim is mounted: the project's folder
CONFIG = "/etc/tanzim"
GRACE_SECONDS = 600  # to finish a step and save it


def manifests(job: Job, launch: KubernetesLaunch) -> list[Json]:
    """Return the objects that ``kubectl apply`` takes: config, name service (for several pods) and job.

    Args:
        job: the run; paths in its config start at the claim's root.
        launch: what it asks of the cluster.

    Raises:
        ConfigError: no image or no claim is named.

    """
    for key, value in (("image", launch.image), ("claim", launch.claim)):
        if not value:
            raise ConfigError(
                f"a job of Kubernetes needs launch.{key}",
                where="launch",
                fix="launch.image names a container image with Tanzim, launch.claim the volume with the data",
            )
    label = job.label()
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(label, launch),
        "data": {"tanzim.yaml": job.text},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(label, launch),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"job-name": label},
            "ports": [{"name": "ranks", "port": PORT}],
        },
    }
    work = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(label, launch),
        "spec": {
            "completionMode": "Indexed",
            "completions": launch.nodes,
            "parallelism": launch.nodes,
            "backoffLimit": 0,
            "template": {"metadata": {"labels": {"app": label}}, "spec": _pod(label, launch)},
        },
    }
    return [config, *([service] if launch.nodes > 1 else []), work]


def _metadata(label: str, launch: KubernetesLaunch) -> Json:
    return {"name": label, "namespace": launch.namespace, "labels": {"app": label}}


def _pod(label: str, launch: KubernetesLaunch) -> Json:
    command = train_command(
        ["tanzim"],
        f"{CONFIG}/tanzim.yaml",
        launch,
        node_rank="$JOB_COMPLETION_INDEX",
        host=f"{label}-0.{label}",
    )
    container = {
        "name": "train",
        "image": launch.image,
        "command": ["/bin/sh", "-c", f"exec {command}"],
        "workingDir": WORK,
        "env": [{"name": "TANZIM_CACHE", "value": f"{WORK}/.cache/tanzim"}],
        "resources": _resources(launch),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "work", "mountPath": WORK},
            {"name": "config", "mountPath": CONFIG, "readOnly": True},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }
    return {
        "restartPolicy": "Never",
        "subdomain": label,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [container],
        "volumes": [
            {"name": "work", "persistentVolumeClaim": {"claimName": launch.claim}},
            {"name": "config", "configMap": {"name": label}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
        ],
    }


def _resources(launch: KubernetesLaunch) -> Json:
    asked: Json = {}
    if launch.cpus:
        asked["cpu"] = str(launch.cpus)
    if launch.memory_gib:
        asked["memory"] = f"{launch.memory_gib}Gi"
    if launch.gpu:
        asked[launch.gpu] = str(launch.nproc)
    return {"requests": asked, "limits": dict(asked)}
