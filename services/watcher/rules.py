"""Access Monitoring Rules on their way to the router: all of them before any request, then each change."""

import asyncio
import logging

from services.watcher.metrics import WatcherMetrics
from services.watcher.outbox import Outbox
from services.watcher.passed_over import PassedOver
from services.watcher.teleport.client import TeleportClient
from services.watcher.teleport.errors import TeleportRefused, TeleportUnavailable, TeleportUnimplemented
from services.watcher.teleport.undecodable import RULE_KIND, Undecodable
from shared.events import AccessMonitoringRule, RuleChanged, RuleDeleted, RulesListed, RulesUnavailable
from shared.rules import KnownRules

log = logging.getLogger(__name__)

PATIENCE = 3
"""Listings that may fail in a row, while the connection works: requests must not wait for ever."""

NOT_WATCHED = f"Teleport does not let this role watch {RULE_KIND}"

TRIED_AGAIN = "they are asked for again at the next snapshot"
ALLOW_LIST = f"to use what Teleport has, allow list of {RULE_KIND} in the role: that counts from the next snapshot"
TOO_OLD = "this version of Teleport has no rules that we could read, and no role changes that"
ALLOW_READ = f"to use what Teleport has, allow read of {RULE_KIND} in the role: that counts from the next connection"


class Rules:
    """What Teleport shows of its rules. Listing and telling take turns: a listing must not undo a later change."""

    def __init__(self, outbox: Outbox, passed_over: PassedOver, metrics: WatcherMetrics) -> None:
        self._outbox = outbox
        self._passed_over = passed_over
        self._metrics = metrics
        self._turn = asyncio.Lock()
        self._failures = 0
        self._said = ""

    async def begin(self, client: TeleportClient, *, shown: bool) -> None:
        """Tell the router all rules, or that there are none to be had; to be done before any request is told.

        `shown`: the watch has accepted rules. Raises `TeleportUnavailable`.
        """
        async with self._turn:
            await self._outbox.append([await self._listing(client, shown=shown)])

    async def compare(self, client: TeleportClient, *, shown: bool) -> None:
        """Tell the router what it does not know, should it have been lost. Raises `TeleportUnavailable`."""
        async with self._turn:
            listing = await self._listing(client, shown=shown)
            known = await self._outbox.known_rules()
            if known is None or not _is_known(listing, known):
                await self._outbox.append([listing])

    async def tell(self, event: RuleChanged | RuleDeleted) -> None:
        """Tell the router of a change, before anything that happens after it."""
        async with self._turn:
            await self._outbox.append([event])

    async def _listing(self, client: TeleportClient, *, shown: bool) -> RulesListed | RulesUnavailable:
        if not shown:
            return await self._unavailable(NOT_WATCHED, ALLOW_READ)
        try:
            found = await self._found(client)
        except TeleportUnimplemented as error:
            return await self._unavailable(str(error), TOO_OLD)
        except TeleportRefused as error:
            return await self._unavailable(str(error), ALLOW_LIST)
        except TeleportUnavailable as error:
            self._failures += 1
            if self._failures < PATIENCE:
                raise
            return await self._unavailable(f"they cannot be listed: {error}", TRIED_AGAIN)
        self._failures = 0
        self._available(len(found))
        return RulesListed(rules=tuple(found[name] for name in sorted(found)))

    def _available(self, count: int) -> None:
        self._metrics.rules_shown.set(1)
        self._metrics.rules.set(count)
        said = f"{count} Access Monitoring Rules notify us"
        if said != self._said:
            log.info("%s", said)
        self._said = said

    async def _found(self, client: TeleportClient) -> dict[str, AccessMonitoringRule]:
        found: dict[str, AccessMonitoringRule] = {}
        async for page in client.rules():
            for rule in page:
                if isinstance(rule, Undecodable):
                    self._passed_over.note(rule)
                else:
                    found[rule.name] = rule
        return found

    async def _unavailable(self, reason: str, advice: str) -> RulesUnavailable:
        """Routers that know rules keep them: better than none, as none are better than no mails."""
        self._metrics.rules_shown.set(0)
        if reason != self._said:
            known = await self._outbox.known_rules()
            are_kept = known is not None and not known.unavailable
            log.warning(
                "Access Monitoring Rules are not shown, %s: %s; %s",
                "those that are known stay in use" if are_kept else "all requests go by role_to_recipients",
                reason,
                advice,
            )
        self._said = reason
        return RulesUnavailable(reason=reason)


def _is_known(listing: RulesListed | RulesUnavailable, known: KnownRules) -> bool:
    if isinstance(listing, RulesListed):
        return not known.unavailable and listing.rules == known.rules
    return not known.unavailable or listing.reason == known.unavailable
