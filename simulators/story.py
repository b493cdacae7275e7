"""The story of three requests that the demos tell: what people do, and the mails that must follow each step.

`python -m simulators.story` tells it again and again to a cluster and an inbox that run elsewhere.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import click
import httpx

from services.watcher.teleport.pb import types_pb2
from simulators.teleport.people import People
from simulators.world import CLUSTER

DEADLINE_SECONDS = 30.0
POLL_SECONDS = 0.005
PAUSE_SECONDS = 60
"""From one round to the next."""

Expected = Mapping[tuple[str, str], list[str]]
"""(request id, address) → the notices in the order in which they must have come."""

Told = Callable[[str], Awaitable[Mapping[str, list[str]]]]
"""Asked with a request's id: who has been told what of it so far, in the order of arrival."""


class Cluster(Protocol):
    """The cluster as its people use it: `AuthService` in this process, `People` of one that runs elsewhere."""

    def create_request(
        self,
        user: str,
        roles: Sequence[str],
        *,
        reason: str = "",
        suggested_reviewers: Sequence[str] = (),
        resources: Sequence[str] = (),
        ttl: timedelta = timedelta(hours=1),
        approvals: int = 1,
    ) -> str:
        """Create a request and return its id."""

    def review(
        self, request_id: str, author: str, state: types_pb2.RequestState.ValueType, reason: str = ""
    ) -> types_pb2.AccessRequestV3:
        """Submit a review."""

    def approve(self, request_id: str, reason: str = "") -> None:
        """Approve as an administrator."""

    def deny(self, request_id: str, reason: str = "") -> None:
        """Deny as an administrator."""


async def story(cluster: Cluster, told: Told) -> Expected:
    """Play it step by step, each after the mails of the one before; gives the mails that must come."""
    expected = _Story(told)
    click.echo("alice asks for production-editor and suggests carol as a reviewer")
    first = cluster.create_request(
        "alice",
        ["production-editor"],
        reason="INC-4711: the deployment of the shop is stuck, I need to edit its configuration.",
        suggested_reviewers=["carol@example.com"],
        resources=[f"/{CLUSTER}/node/shop-1", f"/{CLUSTER}/app/grafana"],
        approvals=2,
    )
    await expected.mails(first, ["ann@example.com", "carol@example.com"], "requested")
    click.echo("ann approves; two approvals are needed")
    cluster.review(first, "ann", types_pb2.APPROVED, "The shop is down, go ahead.")
    await expected.mails(first, ["ann@example.com", "carol@example.com"], "reviewed-1")
    click.echo("an administrator approves")
    cluster.approve(first, "Approved for the length of the incident.")
    await expected.mails(first, ["ann@example.com", "carol@example.com"], "approved")
    click.echo("bob asks for database-admin, which nobody is named for: it goes to the fallback")
    second = cluster.create_request("bob", ["database-admin"], reason="just looking around")
    await expected.mails(second, ["security@example.com"], "requested")
    click.echo("it is denied")
    cluster.deny(second, "Please use the read-only replica.")
    await expected.mails(second, ["security@example.com"], "denied")
    click.echo("eve asks, and nobody looks")
    third = cluster.create_request("eve", ["auditor"], reason="quarterly audit", ttl=timedelta(seconds=2))
    await expected.mails(third, ["security@example.com"], "requested")
    await expected.mails(third, ["security@example.com"], "expired")
    return expected.notices


class _Story:
    """What has been told so far, and the waiting for it."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self.notices: dict[tuple[str, str], list[str]] = {}

    async def mails(self, request_id: str, addresses: list[str], notice: str) -> None:
        """Expect this mail for each of these people, and wait for them."""
        for address in addresses:
            self.notices.setdefault((request_id, address), []).append(notice)
        began = time.monotonic()
        deadline = began + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            arrived = await self._told(request_id)
            if all(arrived.get(address, [])[-1:] == [notice] for address in addresses):
                click.echo(f"   ✉ {notice:<11} {', '.join(addresses)}  ({(time.monotonic() - began) * 1000:.0f} ms)")
                return
            await asyncio.sleep(POLL_SECONDS)
        click.echo(f"   ✗ {notice:<11} has not come within {DEADLINE_SECONDS:.0f} s")


async def has_come(expected: Expected, told: Told) -> bool:
    """Have exactly the expected mails come about these requests, in their order?"""
    for request_id in {request_id for request_id, _ in expected}:
        wanted = {address: notices for (request, address), notices in expected.items() if request == request_id}
        if await told(request_id) != wanted:
            return False
    return True


async def tell(teleport: str, credentials: Path, inbox: str) -> bool:
    """Play the story once; False: not exactly its mails have come."""
    async with httpx.AsyncClient(base_url=inbox, timeout=DEADLINE_SECONDS) as browser:

        async def told(request_id: str) -> Mapping[str, list[str]]:
            found: dict[str, list[str]] = {}
            for mail in (await browser.get(f"/requests/{request_id}.json")).raise_for_status().json():
                found.setdefault(mail["recipient"], []).append(dict(mail["headers"])["X-Access-Mail-Notice"])
            return found

        with People(teleport, credentials) as people:
            return await has_come(await story(people, told), told)


@click.command()
@click.option("--teleport", default="localhost:3025", show_default=True, help="Address of the simulated Auth Service.")
@click.option(
    "--credentials",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("teleport-simulator/people"),
    show_default=True,
    help="Directory of the key and the certificates that the simulator has written for people.",
)
@click.option("--inbox", default="http://localhost:8025", show_default=True, help="The mailbox's web page.")
@click.option("--rounds", default=1, show_default=True, help="How often the story is told, a minute apart.")
@click.option("--told", type=click.Path(path_type=Path), help="File to make when the first round has gone well.")
def main(teleport: str, credentials: Path, inbox: str, rounds: int, told: Path | None) -> None:
    """Tell the story of three requests, and end with 1 as soon as its mails have not come."""
    for number in range(1, rounds + 1):
        click.echo(f"Round {number} of {rounds}")
        if not asyncio.run(tell(teleport, credentials, inbox)):
            click.echo("these are not the mails that must have come")
            sys.exit(1)
        if told is not None:
            told.touch()
        if number < rounds:
            time.sleep(PAUSE_SECONDS)
    click.echo("The story is over.")


if __name__ == "__main__":
    main()
