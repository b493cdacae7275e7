"""The words of `access-mail dead`: its sub-commands and the options that say which dead letters are meant."""

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from console.dead import Deed, Installation, Wanted, deal_with_letters, list_letters, rehearse, show_letter
from shared.settings_values import parse_duration

F = TypeVar("F", bound=Callable[..., Any])


class _Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _installation_options(command: F) -> F:
    command = click.option("-c", "--config", type=click.Path(path_type=Path), help="Configuration file.")(command)
    return click.option("--data-dir", type=click.Path(path_type=Path), help="Where the embedded Valkey has its data.")(
        command
    )


def _filter_options(command: F) -> F:
    command = click.option("--request", "request_id", help="Only those about this Access Request.")(command)
    command = click.option("--since", type=_Duration(), help="Only those given up in the last 90m, 12h …")(command)
    return click.option("--reason", help="Only those with this reason, as `list` shows it.")(command)


@click.group()
def dead() -> None:
    """Look at what was given up, try it again, or forget it."""


@dead.command("list")
@_installation_options
@_filter_options
def list_command(
    config: Path | None, data_dir: Path | None, reason: str | None, since: timedelta | None, request_id: str | None
) -> None:
    """Print a line for each dead letter: id, time, notice, reason, attempts, the relay's answer."""
    sys.exit(list_letters(Installation(config, data_dir), Wanted(frozenset(), reason, since, request_id)))


@dead.command("show")
@_installation_options
@click.argument("letter_id", metavar="ID")
def show_command(config: Path | None, data_dir: Path | None, letter_id: str) -> None:
    """Print all that is known of one dead letter, its recipient included."""
    sys.exit(show_letter(Installation(config, data_dir), letter_id))


def _deal_command(name: str, deed: Deed, purpose: str) -> None:
    @dead.command(name, help=purpose)
    @_installation_options
    @_filter_options
    @click.option("--all", "everything", is_flag=True, help="All dead letters.")
    @click.option("--dry-run", is_flag=True, help="Only print what would be done.")
    @click.argument("ids", nargs=-1, metavar="[ID]...")
    def deal_command(
        *,
        config: Path | None,
        data_dir: Path | None,
        reason: str | None,
        since: timedelta | None,
        request_id: str | None,
        everything: bool,
        dry_run: bool,
        ids: tuple[str, ...],
    ) -> None:
        wanted = Wanted(frozenset(ids), reason, since, request_id)
        if (wanted == Wanted()) is not everything:
            raise click.UsageError("say which: ids, --reason, --since, --request, or --all alone")
        act = rehearse if dry_run else deal_with_letters
        sys.exit(act(Installation(config, data_dir), deed, wanted))


_deal_command("replay", "replayed", "Put dead letters back into the queue, with a fresh budget of attempts.")
_deal_command("forget", "forgotten", "Remove dead letters for good. Their receipts stay: no such mail is made again.")
