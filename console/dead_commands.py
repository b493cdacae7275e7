"""The words of `access-mail dead`: its sub-commands and the options that say which dead letters are meant."""

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import TypeAdapter, ValidationError

from console.dead import Deed, Installation, Wanted, deal_with_letters, list_letters, rehearse, show_letter
from console.options import HELP, config_option, data_dir_option
from shared.events import RequestId
from shared.mail import parse_mail_id
from shared.settings_values import parse_duration

_REQUEST_ID = TypeAdapter[str](RequestId)

F = TypeVar("F", bound=Callable[..., Any])


class _Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Request(click.ParamType[str]):
    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            request_id = _REQUEST_ID.validate_python(value)
        except ValidationError:
            self.fail(f"{value!r} is no id of an Access Request, which are letters, digits, - and _", param, ctx)
        if _is_of_a_mail(request_id):
            self.fail(f"{value!r} is the id of a mail, not of an Access Request; give it without --request", param, ctx)
        return request_id


def _is_of_a_mail(text: str) -> bool:
    try:
        parse_mail_id(text)
    except ValueError:
        return False
    return True


def _filter_options(command: F) -> F:
    command = click.option(
        "--request", "request_id", metavar="ID", type=_Request(), help="Only those about this Access Request."
    )(command)
    command = click.option(
        "--since", type=_Duration(), help="Only those that were given up within this time, such as 90m or 12h."
    )(command)
    return click.option("--reason", metavar="REASON", help="Only those with this reason, as `list` shows it.")(command)


@click.group(context_settings=HELP)
def dead() -> None:
    """See, send again or delete dead letters: mails that were given up.

    A mail is given up when the relay refuses it for good, or when it could not be sent before it became useless. An
    event of Teleport that could not be turned into mails is a dead letter, too.
    """


@dead.command("list", short_help="List dead letters.")
@config_option
@data_dir_option
@_filter_options
def list_command(
    config: Path | None, data_dir: Path | None, reason: str | None, since: timedelta | None, request_id: str | None
) -> None:
    """List dead letters, one a line: id, when it was given up, kind of mail, reason, tries, the relay's answer."""
    sys.exit(list_letters(Installation(config, data_dir), Wanted(frozenset(), reason, since, request_id)))


@dead.command("show", short_help="Print everything about one dead letter.")
@config_option
@data_dir_option
@click.argument("letter_id", metavar="ID")
def show_command(config: Path | None, data_dir: Path | None, letter_id: str) -> None:
    """Print everything that is known about one dead letter, its recipient's address included."""
    sys.exit(show_letter(Installation(config, data_dir), letter_id))


def _deal_command(name: str, deed: Deed, short: str, purpose: str) -> None:
    @dead.command(name, short_help=short, help=f"{purpose} Say which: IDs as `list` shows them, a filter, or --all.")
    @config_option
    @data_dir_option
    @_filter_options
    @click.option("--all", "everything", is_flag=True, help="All dead letters.")
    @click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
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


_deal_command(
    "replay", "replayed", "Send dead letters again.", "Put dead letters back into the queue, with a fresh set of tries."
)
_deal_command(
    "forget", "forgotten", "Delete dead letters.", "Delete dead letters. Nobody is told again what they were about."
)
