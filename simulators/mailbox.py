"""A recording SMTP server: takes mails, and refuses, defers, drops or dawdles as a script of rules tells it.

`python -m simulators.mailbox --port 2525 --web-port 8025` runs it by itself, with a web page that shows the mails.
"""

import asyncio
import signal
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from threading import Thread
from types import SimpleNamespace
from typing import Any, AnyStr, Literal, Self

import click
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from simulators.inbox import Inbox
from simulators.logins import MECHANISMS, Login, log_in_by_token
from simulators.received import ReceivedMail, about, duplicates
from simulators.rules import Rule, Stage

__all__ = ["Encryption", "Login", "Mailbox", "ReceivedMail", "Rule", "Stage"]

Encryption = Literal["offered", "required", "implicit"]
"""STARTTLS may or must be used (RFC 3207), or TLS begins with the connection (RFC 8314)."""

EXTENSIONS = ("PIPELINING", "8BITMIME", "SIZE", "SMTPUTF8", "ENHANCEDSTATUSCODES")
"""What EHLO offers besides STARTTLS and AUTH, which follow from the certificate and the users."""

COMMANDS: Mapping[str, Stage] = {"EHLO": "ehlo", "STARTTLS": "starttls", "AUTH": "auth", "MAIL": "mail"}
"""The stages that are single commands."""


class Mailbox:
    """An SMTP server on one address and port, which it keeps when it is stopped and started again.

    Give it to `async with`, or to `with mailbox.run_in_thread()` where no loop runs. `mails`, `logins`, `rules` and
    `users` may be read and changed while it runs.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        encryption: Encryption = "offered",
        users: Mapping[str, str] | None = None,
        mechanisms: Collection[str] = ("PLAIN", "LOGIN"),
        size_limit: int = 2**25,
        extensions: Collection[str] = EXTENSIONS,
        keep: int | None = None,
    ) -> None:
        """`keep`: how many mails it holds, the newest; None: all."""
        self.host = host
        self.port = port
        self.tls = tls
        self.encryption = encryption
        self.users = dict(users or {})
        """Passwords by user. If there are any, nobody may send without having logged in."""
        self.mechanisms = mechanisms
        self.size_limit = size_limit
        self.extensions = extensions
        self.rules: list[Rule] = []
        self.keep = keep
        self.mails: list[ReceivedMail] = []
        self.forgotten = 0
        """How many of the oldest mails it does not hold any more."""
        self.logins: list[Login] = []
        self.connections = 0
        """How many connections there have been."""
        self.open: set[Connection] = set()
        self.server: asyncio.Server | None = None
        """There is one while it listens."""

    def take(self, mail: ReceivedMail) -> None:
        """Hold this mail, and forget the oldest one where there is no room for it."""
        self.mails.append(mail)
        if self.keep is not None and len(self.mails) > self.keep:
            del self.mails[0]
            self.forgotten += 1

    def duplicates(self) -> dict[tuple[str, str], int]:
        """How often (Message-ID, recipient) was taken, for those that were taken more than once."""
        return duplicates(self.mails)

    def thread(self, request_id: str, recipient: str = "*") -> list[ReceivedMail]:
        """Mails about one Access Request in the order of arrival; `recipient` may be a pattern."""
        return about(self.mails, request_id, recipient)

    async def start(self) -> None:
        """Listen, from the second time on at the port of the first. Raises `OSError` if somebody else does."""
        self.server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self), self.host, self.port, ssl=self.tls if self.encryption == "implicit" else None
        )
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections and cut those that are open, as a relay that is killed."""
        assert self.server is not None, "it was not started"
        server, self.server = self.server, None
        server.close()
        await asyncio.gather(*(connection.cut() for connection in tuple(self.open)))
        await server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        await self.stop()

    @contextmanager
    def run_in_thread(self) -> Iterator[Self]:
        """Run on a loop of its own, in a thread, as long as the block lasts."""
        loop = asyncio.new_event_loop()
        thread = Thread(target=loop.run_forever, name="mailbox")
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self.start(), loop).result()
            try:
                yield self
            finally:
                asyncio.run_coroutine_threadsafe(self.stop(), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


class QuietSession(Session):
    """Without the library's warning about an attribute that it sets itself."""

    login_data: Any = None


class Connection(SMTP):
    """One connection: the library's SMTP, except where a rule says otherwise."""

    def __init__(self, mailbox: Mailbox) -> None:
        implicit = mailbox.encryption == "implicit"
        super().__init__(
            SimpleNamespace(
                handle_EHLO=self.offer,
                handle_RCPT=self.take_recipient,
                handle_DATA=self.take_mail,
                auth_XOAUTH2=lambda _, arguments: log_in_by_token(self, arguments, partial(self.knows, "XOAUTH2")),
            ),
            hostname="mailbox.test",
            ident="Access Mail mailbox",
            data_size_limit=mailbox.size_limit,
            enable_SMTPUTF8="SMTPUTF8" in mailbox.extensions,
            tls_context=None if implicit else mailbox.tls,
            require_starttls=mailbox.encryption == "required",
            auth_require_tls=mailbox.tls is not None and not implicit,
            auth_exclude_mechanism=MECHANISMS.difference(mailbox.mechanisms),
            authenticator=self.authenticate,
            loop=asyncio.get_running_loop(),
        )
        for command, stage in COMMANDS.items():
            self._smtp_methods[command] = partial(self.unless_ruled, stage, self._smtp_methods[command])
        self.mailbox = mailbox
        self.number = 0
        self.user = ""
        self._greeted = False
        self._gone = self.loop.create_future()

    @property
    def encrypted(self) -> bool:
        """Does TLS protect what it says?"""
        return self.transport is not None and self.transport.get_extra_info("ssl_object") is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection; the library calls this again after STARTTLS."""
        super().connection_made(transport)
        if self.number:
            return
        self.mailbox.connections += 1
        self.number = self.mailbox.connections
        self.mailbox.open.add(self)
        assert self._handler_coroutine is not None, "the library has begun to serve"
        # A peer that goes away in mid-sentence ends the task with an error that concerns nobody.
        self._handler_coroutine.add_done_callback(lambda task: task.cancelled() or task.exception())
        if self.mailbox.server is None:  # its TLS handshake has outlived the server
            self._writer.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing more can be said."""
        super().connection_lost(error)
        self.mailbox.open.discard(self)
        if not self._gone.done():  # the library calls this itself where a TLS handshake fails
            self._gone.set_result(None)

    async def cut(self) -> None:
        """Cut the line, and wait until nothing of the connection is left."""
        assert self._handler_coroutine is not None, "the library has begun to serve"
        self._writer.transport.abort()
        await asyncio.wait([self._handler_coroutine, self._gone])

    async def rule(self, stage: Stage, recipients: Sequence[str] = ()) -> str:
        """The reply that a rule dictates, or nothing. Does not return where the rule cuts the line."""
        rule = next((rule for rule in self.mailbox.rules if rule.fits(stage, recipients)), None)
        if rule is None:
            return ""
        rule.obeyed += 1
        await asyncio.sleep(rule.delay)
        if rule.drop:
            self._writer.transport.abort()
            await asyncio.shield(self._gone)  # and with it this task is cancelled, as it serves the connection
        return rule.reply

    async def push(self, status: AnyStr) -> None:
        """Send a reply. 421 is the last one (RFC 5321 §3.8), and so is a refusal in place of the greeting."""
        greeting, self._greeted = not self._greeted, True
        refusal = await self.rule("connect") if greeting else ""
        await (super().push(refusal) if refusal else super().push(status))
        if refusal or status[:3] in ("421", b"421"):
            assert self.transport is not None, "the reply has left"
            self.transport.close()

    async def unless_ruled(self, stage: Stage, ordinary: Callable[[str], Awaitable[None]], argument: str) -> None:
        """Serve a command the ordinary way, unless a rule has another reply."""
        if reply := await self.rule(stage):
            await self.push(reply)
        else:
            await ordinary(argument)

    async def check_auth_needed(self, caller_method: str) -> bool:  # noqa: ARG002 # the library's signature
        """RFC 4954 §6: 530 where there are users and none has logged in."""
        assert self.session is not None, "the connection was made"
        if not self.mailbox.users or self.session.authenticated:
            return False
        await self.push("530 5.7.0 Authentication required")
        return True

    def authenticate(self, _: SMTP, _session: Session, _envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        """The library asks."""
        return AuthResult(success=self.knows(mechanism, data.login.decode(), data.password.decode()), handled=False)

    def knows(self, mechanism: str, user: str, password: str) -> bool:
        """Is that the user's password, or token?"""
        accepted = self.mailbox.users.get(user) == password
        self.mailbox.logins.append(Login(user=user, mechanism=mechanism, accepted=accepted, tls=self.encrypted))
        self.user = user if accepted else ""
        return accepted

    async def offer(self, _: SMTP, session: Session, _envelope: Envelope, hostname: str, lines: list[str]) -> list[str]:
        """Name the extensions that the mailbox is to have in place of the library's (RFC 5321 §4.1.1.1)."""
        session.host_name = hostname
        security = {"STARTTLS", "AUTH"} if self.mailbox.users else {"STARTTLS"}
        offers = [line[4:] for line in lines if line[4:].split()[0] in security]
        offers += [f"SIZE {self.mailbox.size_limit}" if name == "SIZE" else name for name in self.mailbox.extensions]
        *first, last = self.hostname, *offers
        return [*(f"250-{line}" for line in first), f"250 {last}"]

    async def take_recipient(self, _: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any) -> str:
        """Take the recipient, unless a rule refuses it."""
        if reply := await self.rule("rcpt", [address]):
            return reply
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def take_mail(self, _: SMTP, _session: Session, envelope: Envelope) -> str:
        """Take the mail, once for each recipient, unless a rule refuses it."""
        if reply := await self.rule("data", envelope.rcpt_tos):
            return reply
        assert isinstance(envelope.content, bytes), "the library was told not to decode"
        for recipient in envelope.rcpt_tos:
            mail = ReceivedMail(
                sender=envelope.mail_from or "",
                recipient=recipient,
                raw=envelope.content,
                arrived=datetime.now(UTC),
                connection=self.number,
                tls=self.encrypted,
                user=self.user,
            )
            self.mailbox.take(mail)
        number = self.mailbox.forgotten + len(self.mailbox.mails)
        return await self.rule("accepted", envelope.rcpt_tos) or f"250 2.0.0 OK: mail {number}"

    def _create_session(self) -> Session:
        return QuietSession(self.loop)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=2525, show_default=True, help="Port for SMTP.")
@click.option("--web-port", default=8025, show_default=True, help="Port for the web page.")
@click.option(
    "--refuse", multiple=True, metavar="PATTERN", help="Recipients to refuse for good; * stands for any text."
)
@click.option("--keep", default=1500, show_default=True, help="How many mails to keep, the newest.")
def main(host: str, port: int, web_port: int, refuse: tuple[str, ...], keep: int) -> None:
    """Take every mail, and show it on a web page, until interrupted."""
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    mailbox = Mailbox(host=host, port=port, keep=keep)
    mailbox.rules += [Rule("rcpt", "550 5.1.1 there is nobody of that name", recipient=pattern) for pattern in refuse]
    with mailbox.run_in_thread(), Inbox(mailbox, host=host, port=web_port) as inbox:
        click.echo(f"takes mail at smtp://{host}:{mailbox.port}, shows it at {inbox.url}")
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
