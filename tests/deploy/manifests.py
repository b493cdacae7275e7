"""Kubernetes manifests as kustomize renders them, and the questions that tests ask of them."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]

Manifest = Mapping[str, Any]


def render(directory: Path) -> "Rendered":
    """What `kubectl apply --kustomize` would send. Skips where there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("NO KUBECTL: the Kubernetes manifests are not checked")
    done = subprocess.run([kubectl, "kustomize", directory], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "kustomize warns"
    return Rendered(list(yaml.safe_load_all(done.stdout)))


@dataclass(frozen=True)
class Mount:
    """What a container finds at a path."""

    path: PurePosixPath
    volume: str
    only: str | None
    """The one file of the volume that is mounted, in place of all."""


@dataclass(frozen=True)
class Container:
    """One container of a pod."""

    pod: "Pod"
    body: Manifest

    @property
    def name(self) -> str:
        return f"{self.pod.name}/{self.body['name']}"

    @property
    def ports(self) -> dict[str, int]:
        """Its named ports."""
        return {port["name"]: port["containerPort"] for port in self.body.get("ports", [])}

    @property
    def mounts(self) -> list[Mount]:
        return [
            Mount(PurePosixPath(mount["mountPath"]), mount["name"], mount.get("subPath"))
            for mount in self.body.get("volumeMounts", [])
        ]

    @property
    def environ(self) -> dict[str, str]:
        """The variables that are written out."""
        return {variable["name"]: variable["value"] for variable in self.body.get("env", []) if "value" in variable}

    @property
    def probes(self) -> dict[str, Manifest]:
        return {name: probe for name, probe in self.body.items() if name.endswith("Probe")}

    @property
    def secrets(self) -> set[str]:
        """Names of the secrets whose content it can read."""
        from_variables = {
            source["secretKeyRef"]["name"]
            for variable in self.body.get("env", [])
            if "secretKeyRef" in (source := variable.get("valueFrom", {}))
        }
        assert "envFrom" not in self.body, f"{self.name}: variables are named one by one"
        volumes = {mount.volume for mount in self.mounts}
        return from_variables | {
            volume["secret"]["secretName"]
            for name, volume in self.pod.volumes.items()
            if name in volumes and "secret" in volume
        }


@dataclass(frozen=True)
class Pod:
    """The pod that an object makes copies of."""

    owner: Manifest

    @property
    def name(self) -> str:
        return str(self.owner["metadata"]["name"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.owner["spec"]["template"]["metadata"]["labels"])

    @property
    def spec(self) -> Manifest:
        spec: Manifest = self.owner["spec"]["template"]["spec"]
        return spec

    @property
    def containers(self) -> list[Container]:
        """All of them, those that run before the others too."""
        return [Container(self, body) for body in [*self.spec.get("initContainers", []), *self.spec["containers"]]]

    @property
    def ports(self) -> dict[str, int]:
        return {name: port for container in self.containers for name, port in container.ports.items()}

    @property
    def volumes(self) -> dict[str, Manifest]:
        claimed = {claim["metadata"]["name"]: claim for claim in self.owner["spec"].get("volumeClaimTemplates", [])}
        return {**{volume["name"]: volume for volume in self.spec.get("volumes", [])}, **claimed}


@dataclass(frozen=True)
class Rendered:
    """All objects of an overlay."""

    manifests: list[Manifest]

    def of_kind(self, kind: str) -> list[Manifest]:
        return [manifest for manifest in self.manifests if manifest["kind"] == kind]

    def names(self, kind: str) -> set[str]:
        return {manifest["metadata"]["name"] for manifest in self.of_kind(kind)}

    @cached_property
    def pods(self) -> dict[str, Pod]:
        """Each pod by the name of its owner."""
        owners = [manifest for manifest in self.manifests if "template" in manifest.get("spec", {})]
        return {owner["metadata"]["name"]: Pod(owner) for owner in owners}

    @property
    def containers(self) -> Iterator[Container]:
        return (container for pod in self.pods.values() for container in pod.containers)

    def chosen_by(self, selector: Mapping[str, str]) -> list[str]:
        """Names of those pods that carry all labels of the selector; an empty one chooses every pod."""
        return [name for name, pod in self.pods.items() if selector.items() <= pod.labels.items()]

    def configuration(self, pod: Pod) -> str:
        """The configuration file that the pod mounts."""
        (name,) = [volume["configMap"]["name"] for volume in pod.volumes.values() if "configMap" in volume]
        (data,) = [manifest["data"] for manifest in self.of_kind("ConfigMap") if manifest["metadata"]["name"] == name]
        return str(data["teleport-email.toml"])
