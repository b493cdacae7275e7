"""Adds what Teleport tells beside the event: who was told already, and the names that reviewers know.

Only where Redis does not know the request: everything else was looked up when it was new.
"""

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from services.watcher.look_ups import LookUps, Subject
from services.watcher.metrics import LookUp, WatcherMetrics
from services.watcher.outbox import Outbox
from services.watcher.patience import Patience
from services.watcher.record import announced
from services.watcher.teleport.client import TeleportClient
from services.watcher.teleport.described import Described, Traits
from services.watcher.teleport.facts import Fact
from services.watcher.teleport.inquiries import RESOURCE_TYPES
from shared.event_log import KnownRequest
from shared.events import AccessRequest, Cluster, RequestChanged, RequestGone, RequestState, Resource, request_id_of
from shared.tasks import end

log = logging.getLogger(__name__)

ROLES = 100
"""Of a request whose logins are looked up: a mail shows fewer."""
LOGINS = 100

_VARIABLE = re.compile(r"([^{}]*)\{\{\s*(?:internal|external)(?:\.([\w-]+)|\[\"([^\"\]]+)\"\])\s*\}\}([^{}]*)")
"""A login that stands for a trait, such as `{{internal.logins}}` or `{{external["unix user"]}}-admin`."""


Result = TypeVar("Result")


@dataclass(frozen=True)
class Incoming:
    """An event while it is looked up what it is about. It keeps its place among those of its request."""

    event: RequestChanged | RequestGone
    look_up: asyncio.Task[RequestChanged | RequestGone]
    told: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done once it is on the stream, or need not be."""

    async def known(self) -> RequestChanged | RequestGone | None:
        """The event with all that was learned.

        If the connection has ended before that, an end as it came, and None for all else: the next connection finds
        it in its listing, and looks it up. Told as it came it would count as known, and be told to the wrong people.
        """
        await asyncio.wait([self.look_up])
        if not self.look_up.cancelled():
            return self.look_up.result()
        return self.event if isinstance(self.event, RequestGone) else None


class Enricher:
    """Asks over one connection, and gives each event back whatever its look-ups came to."""

    def __init__(self, client: TeleportClient, outbox: Outbox, patience: Patience, metrics: WatcherMetrics) -> None:
        self._client = client
        self._outbox = outbox
        self._look_ups = LookUps(metrics, patience)
        self._metrics = metrics
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, cluster: Cluster, events: Sequence[RequestChanged | RequestGone]) -> list[Incoming]:
        """Begin to look up what the events are about, and do not wait."""
        known = self._task(self._outbox.known(list(dict.fromkeys(map(request_id_of, events)))))
        return [Incoming(event, self._task(self._alone(cluster, event, known))) for event in events]

    async def end(self) -> None:
        """Look up nothing any more: the connection has ended."""
        await end(self._tasks)
        await self._look_ups.end()

    def _task(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _alone(
        self, cluster: Cluster, event: RequestChanged | RequestGone, known: asyncio.Task[dict[str, KnownRequest]]
    ) -> RequestChanged | RequestGone:
        """The same event, that of an unknown request with all that could be learned."""
        return await self._one(cluster, event, is_known=request_id_of(event) in await known)

    async def _one(
        self, cluster: Cluster, event: RequestChanged | RequestGone, *, is_known: bool
    ) -> RequestChanged | RequestGone:
        if is_known:
            return event
        request_id = request_id_of(event)
        entry = await self._look_ups.record(request_id, lambda: self._client.plugin_entry(request_id))
        record = announced(entry) if entry else None
        if isinstance(event, RequestGone):
            return event.model_copy(update={"announced": record, "cluster": cluster if record else None})
        if record is None and event.request.state is not RequestState.PENDING:
            return event  # nobody will be told of it
        request = await self._named(event.request)
        self._tell_cuts(request)
        return event.model_copy(update={"announced": record, "request": request})

    async def _named(self, request: AccessRequest) -> AccessRequest:
        roles = request.roles[:ROLES]
        known, logins, described = await asyncio.gather(
            self._look_ups.each(Subject(LookUp.TRAITS), [request.user], self._traits),
            asyncio.gather(*(self._look_ups.each(Subject(LookUp.LOGINS), [role], self._logins) for role in roles)),
            self._described(request.resources),
        )
        traits = known.get(request.user, Traits({}, are_cut=False))
        cut = [Fact.USER_TRAITS] if traits.are_cut else []
        cut += [Fact.LABELS] if any(one.labels_are_cut for one in described.values()) else []
        return request.model_copy(
            update={
                "user_traits": traits.values,
                "logins_by_role": {
                    role: allowed_logins(allowed, traits.values) for one in logins for role, allowed in one.items()
                },
                "resources": tuple(_named(resource, described.get(_place(resource))) for resource in request.resources),
                "cut": (*request.cut, *cut),
            }
        )

    async def _traits(self, users: Sequence[str]) -> dict[str, Traits]:
        return {user: await self._client.inquiries.traits(user) for user in users}

    async def _logins(self, roles: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return {role: await self._client.inquiries.logins(role) for role in roles}

    async def _described(self, resources: Sequence[Resource]) -> dict[tuple[str, str], Described]:
        """By kind and id; of whichever cluster, they are looked up in this one (Teleport's own plugins do the same)."""
        kinds: defaultdict[str, list[str]] = defaultdict(list)
        for resource in resources:
            if resource.kind in RESOURCE_TYPES:
                kinds[resource.kind].append(resource.name)
        answers = await asyncio.gather(
            *(
                self._look_ups.each(
                    Subject(LookUp.RESOURCES, kind), ids, partial(self._client.inquiries.resources, kind)
                )
                for kind, ids in kinds.items()
            )
        )
        return {
            (kind, name): found for kind, answer in zip(kinds, answers, strict=True) for name, found in answer.items()
        }

    def _tell_cuts(self, request: AccessRequest) -> None:
        if not request.cut:
            return
        for fact in request.cut:
            self._metrics.facts_cut.labels(fact).inc()
        log.warning("request %s is larger than is looked at: cut are its %s", request.id, ", ".join(request.cut))


def _place(resource: Resource) -> tuple[str, str]:
    return resource.kind, resource.name


def _named(resource: Resource, found: Described | None) -> Resource:
    if found is None:
        return resource
    return resource.model_copy(update={"friendly_name": found.friendly_name, "labels": found.labels})


def allowed_logins(templates: Sequence[str], traits: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The logins of a role for a user with these traits. Left out are those that Teleport would have to compute."""
    found: dict[str, None] = {}
    for template in templates:
        variable = _VARIABLE.fullmatch(template)
        if variable:
            before, name, quoted, after = variable.groups()
            found.update((f"{before}{value}{after}", None) for value in traits.get(name or quoted, ()))
        elif "{{" not in template:
            found[template] = None
    return tuple(found)[:LOGINS]
