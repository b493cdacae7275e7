"""`access-mail dead`: what was given up and why, for an operator to look at, to try again, or to forget."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import click
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import RedisError

from console.embedded_valkey import SOCKET_NAME, data_directory
from services.mailer.metrics import DEATHS
from shared.dead_letters import EVENT, UNROUTABLE, DeadEvents, DeadLetter
from shared.lifecycle import print_faults, process_settings
from shared.mail import one_line
from shared.mail_queue.operator_end import UNKNOWN, OperatorEnd
from shared.redis import connect
from shared.settings import RedisSettings, SettingsError

LONGEST_IN_A_LINE = 100
LONGEST = 2000

REASONS = (*DEATHS, UNROUTABLE, UNKNOWN)
"""What a letter of this version may have died of."""

Deed = Literal["replayed", "forgotten"]
"""What can be done with a dead letter."""


@dataclass(frozen=True)
class Installation:
    """Where the dead letters are."""

    config: Path | None
    """The configuration file; None: the usual one."""
    data_dir: Path | None
    """Where the embedded Valkey has its data: then no configuration is needed."""


@dataclass(frozen=True)
class Wanted:
    """Which dead letters an operator means: those that meet all of this."""

    ids: frozenset[str] = frozenset()
    """Empty: any."""
    reason: str | None = None
    since: timedelta | None = None
    """Given up not longer ago than this. A letter whose time is not known meets it."""
    request_id: str | None = None

    def meets(self, letter: DeadLetter, now: float) -> bool:
        """Is this letter meant? `now` is Redis's."""
        return (
            (not self.ids or letter.id in self.ids)
            and self.reason in (None, letter.reason)
            and self.request_id in (None, letter.request_id)
            and (self.since is None or letter.died_at is None or letter.died_at >= now - self.since.total_seconds())
        )


class DeadLetters:
    """Mails and events together. Every method raises `redis.exceptions.RedisError`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._mails = OperatorEnd(redis)
        self._events = DeadEvents(redis)

    def meant(self, wanted: Wanted) -> Iterator[DeadLetter]:
        """Those that are wanted, the oldest first; mails before events.

        Raises `click.BadParameter` for a reason that none can have.
        """
        if wanted.reason is not None:
            self._insist_on_reason(wanted.reason)
        now, _ = self._redis.time()
        for source in (self._mails, self._events):
            yield from (letter for letter in source.letters() if wanted.meets(letter, now))

    def do(self, deed: Deed, letters: Sequence[DeadLetter]) -> int:
        """Replay or forget these; gives how many were still there."""
        events = [letter.id for letter in letters if letter.what == EVENT]
        mails = [letter.id for letter in letters if letter.what != EVENT]
        if deed == "replayed":
            return self._mails.replay(mails) + self._events.replay(events)
        return self._mails.forget(mails) + self._events.forget(events)

    def _insist_on_reason(self, reason: str) -> None:
        """Raise `click.BadParameter` for one that is not of this version, nor of a letter that another has left."""
        if reason in REASONS:
            return
        found = {letter.reason for letter in self.meant(Wanted())}
        if reason not in found:
            known = ", ".join(sorted(found.union(REASONS)))
            raise click.BadParameter(f"{reason!r} is none; the reasons are {known}", param_hint="--reason")


def list_letters(installation: Installation, wanted: Wanted) -> int:
    """Print a line for each; the exit code."""
    return _answered(installation, lambda dead: _list(dead, wanted))


def show_letter(installation: Installation, letter_id: str) -> int:
    """Print all that is known of one; the exit code."""
    return _answered(installation, lambda dead: _show(dead, letter_id))


def deal_with_letters(installation: Installation, deed: Deed, wanted: Wanted) -> int:
    """Replay or forget those that are wanted, and say how many; the exit code: 1 if one that was named is not there."""
    return _answered(installation, lambda dead: _deal(dead, deed, wanted))


def rehearse(installation: Installation, deed: Deed, wanted: Wanted) -> int:
    """Print what `deal_with_letters` would do; the exit code is the same."""
    return _answered(installation, lambda dead: _rehearse(dead, deed, wanted))


def _answered(installation: Installation, work: Callable[[DeadLetters], int]) -> int:
    try:
        with _redis_of(installation) as redis:
            return work(DeadLetters(redis))
    except SettingsError as error:
        print_faults(error)
    except RedisError as error:
        click.echo(f"Redis: {error}", err=True)
    return 1


def _redis_of(installation: Installation) -> Redis:
    directory = installation.data_dir
    if directory is None:
        settings = process_settings(installation.config, None)
        if settings.redis.url is not None:
            return connect(settings.redis, "console")
        directory = data_directory(None, settings, dict(os.environ))
    socket = directory.absolute() / SOCKET_NAME
    if not socket.exists():
        fault = f"no redis.url is given, and no Valkey runs in {socket.parent}; name its place with --data-dir"
        raise SettingsError([fault])
    return connect(RedisSettings(url=SecretStr(f"unix://{socket}")), "console")


def _list(dead: DeadLetters, wanted: Wanted) -> int:
    found = 0
    for letter in dead.meant(wanted):
        found += 1
        click.echo(_line(letter))
    click.echo(f"{_counted(found)}", err=True)
    return 0


def _show(dead: DeadLetters, letter_id: str) -> int:
    letter = next(dead.meant(Wanted(frozenset({letter_id}))), None)
    if letter is None:
        return _missing({letter_id})
    facts = {
        "id": letter.id,
        "request": letter.request_id,
        "what": letter.what,
        "recipient": letter.recipient,
        "died": _time(letter),
        "reason": letter.reason,
        "detail": one_line(letter.detail, LONGEST),
        "attempts": str(letter.attempts),
        "sent": "perhaps" if letter.perhaps else "no",
    }
    for name, value in facts.items():
        click.echo(f"{name + ':':<11}{value}".rstrip())
    return 0


def _deal(dead: DeadLetters, deed: Deed, wanted: Wanted) -> int:
    letters = list(dead.meant(wanted))
    done = dead.do(deed, letters)
    click.echo(f"{_counted(done)} {deed}")
    return _missing(wanted.ids - {letter.id for letter in letters})


def _rehearse(dead: DeadLetters, deed: Deed, wanted: Wanted) -> int:
    letters = list(dead.meant(wanted))
    for letter in letters:
        click.echo(_line(letter))
    click.echo(f"{_counted(len(letters))} would be {deed}")
    return _missing(wanted.ids - {letter.id for letter in letters})


def _missing(ids: frozenset[str] | set[str]) -> int:
    for letter_id in sorted(ids):
        click.echo(f"{letter_id} is no dead letter", err=True)
    return 1 if ids else 0


def _line(letter: DeadLetter) -> str:
    detail = one_line(letter.detail, LONGEST_IN_A_LINE)
    return (
        f"{letter.id}  {_time(letter)}  {letter.what}  {letter.reason}  {letter.attempts} attempts  {detail}".rstrip()
    )


def _time(letter: DeadLetter) -> str:
    if letter.died_at is None:
        return "unknown"
    return datetime.fromtimestamp(letter.died_at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _counted(letters: int) -> str:
    return f"{letters} dead letter{'' if letters == 1 else 's'}"
