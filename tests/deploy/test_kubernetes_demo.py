"""The demo on Kubernetes is complete: it runs what there is, speaks to what it brings, waits for nobody's secret."""

import importlib.util
import re
import tomllib

import click

from tests.deploy.manifests import ROOT, render

DEMO = ROOT / "k8s/overlays/demo"


def test_the_demo_runs_modules_that_exist_with_options_that_they_know() -> None:
    modules = set()
    for container in render(DEMO).containers:
        match container.body.get("command"):
            case ["python", "-m", module]:
                modules.add(module)
                if module.startswith("simulators."):
                    run: click.Command = importlib.import_module(_program(module)).main
                    run.make_context(module, list(container.body["args"])).close()
    assert modules == {"http.server", *(f"simulators.{name}" for name in ("bot", "mailbox", "story", "teleport"))}


def _program(module: str) -> str:
    package = importlib.util.find_spec(module)
    assert package is not None
    return f"{module}.__main__" if package.submodule_search_locations else module


def test_the_demo_waits_for_no_secret() -> None:
    for pod in render(DEMO).pods.values():
        for volume in pod.volumes.values():
            assert "secret" not in volume or volume["secret"]["optional"], pod.name


def test_hosts_that_the_demo_speaks_to_are_services_of_its_own() -> None:
    demo = render(DEMO)
    there = {
        f"{service['metadata']['name']}:{port['port']}"
        for service in demo.of_kind("Service")
        for port in service["spec"]["ports"]
    }
    arguments = [text for container in demo.containers for text in container.body.get("args", [])]
    configuration = demo.configuration(demo.pods["access-mail-mailer"])
    relay = tomllib.loads(configuration)["smtp"]
    named = {*re.findall(r"\baccess-mail-[\w-]+:\d+", "\n".join([*arguments, configuration]))}
    assert named
    assert named | {f"{relay['host']}:{relay['port']}"} <= there
