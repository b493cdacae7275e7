"""What the tests of the manifests look at: every overlay, and in it every service."""

from typing import get_args

import pytest

from shared.settings import ServiceName
from tests.deploy.guide import guide_overlay
from tests.deploy.manifests import ROOT, Container, Pod, Rendered, render

OVERLAYS = sorted(str(path.parent.relative_to(ROOT / "k8s")) for path in ROOT.glob("k8s/overlays/*/kustomization.yaml"))


@pytest.fixture(scope="module", params=["base", *OVERLAYS, "the guide's own"])
def rendered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    if request.param == "the guide's own":
        return render(guide_overlay(tmp_path_factory.mktemp("guide")))
    return render(ROOT / "k8s" / request.param)


@pytest.fixture(params=get_args(ServiceName))
def service(request: pytest.FixtureRequest) -> ServiceName:
    name: ServiceName = request.param
    return name


@pytest.fixture
def pod(rendered: Rendered, service: ServiceName) -> Pod:
    return rendered.pods[f"access-mail-{service}"]


@pytest.fixture
def container(pod: Pod) -> Container:
    """The one that runs the service."""
    (container,) = [one for one in pod.containers if one.body["name"] == "access-mail"]
    return container
