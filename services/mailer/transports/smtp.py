"""Mails over SMTP (RFC 5321): a pool of connections to one relay, no wider than that relay bears."""

import asyncio
import logging
import ssl
import time
from collections import deque

from services.mailer.errors import Held
from services.mailer.transports import Envelope, StillHeld
from services.mailer.transports.smtp_connection import Connection
from services.mailer.transports.smtp_conversation import Conversation
from services.mailer.transports.smtp_login import Login, Patience, login_secret
from services.mailer.transports.smtp_traffic import Carrier, Sending
from services.mailer.transports.width import Width
from shared.settings import SettingsError, SmtpSettings
from shared.settings_files import NamedFile

log = logging.getLogger(__name__)

LOCKSTEP_SECONDS = 600.0
"""How long a relay that broke its promise of PIPELINING gets each command by itself."""


class SmtpTransport:
    """As many connections as mails need at once, within bounds, kept for the next ones and dropped on any doubt."""

    def __init__(self, settings: SmtpSettings, ehlo_name: str, connections: int, patience: Patience) -> None:
        """`ehlo_name`: what we greet with, at most `connections` times at once.

        Raises `SettingsError` if a file cannot be read.
        """
        self.at_once = 3 * connections
        """Each connection has one mail at the relay, one that follows it closely, and the next one ready."""
        self.waiting: deque[Sending] = deque()
        self.resting: list[Carrier] = []
        self._settings = settings
        self._ehlo_name = ehlo_name
        self._patience = patience
        self._width = Width(connections, time.monotonic)
        self._carriers: dict[asyncio.Task[None], Connection | None] = {}
        """None: it is being made."""
        self._being_made = 0
        self._closed = False
        self._lockstep_until = 0.0
        self.reload()

    def reload(self) -> None:
        """Read the files again. Mails go over new connections from now on, which are secured and logged in anew.

        Called in another thread than the loop's: it touches no connection.
        """
        login_secret(self._settings)
        self._tls = _tls_context(self._settings)

    async def check(self) -> str:
        """Connect, secure and log in; what the relay greets with."""
        session = await Login(self._settings, self._ehlo_name, self._tls, self._patience).session()
        await Conversation(session.transport, lambda: None).leave()
        return session.greeting

    async def send(self, envelope: Envelope, still_held: StillHeld) -> str:
        """See `Transport`. A kept connection that turns out dead is no fault of the relay: another one is taken."""
        sending = Sending(envelope, still_held, asyncio.get_running_loop().create_future())
        self.waiting.append(sending)
        self._call_somebody()
        return await sending.answer

    async def close(self) -> None:
        """Leave the relay; connections with mails that somebody waits for follow when these are done."""
        self._closed = True
        while self.resting:
            self.resting.pop().wake()
        leaving = []
        for carrier, connection in self._carriers.items():
            if connection is None and not self._is_waited_for:
                carrier.cancel()
            elif connection is not None and connection.is_abandoned:
                connection.leave()
            else:
                continue
            leaving.append(carrier)
        await asyncio.gather(*leaving, return_exceptions=True)

    # -- what the connections ask and tell

    @property
    def is_full(self) -> bool:
        """See `Traffic`."""
        return len(self._carriers) >= self._width.now

    def wants(self, carrier: Carrier) -> bool:
        """Is it secured as the files now say, and are there not too many?"""
        fresh = carrier.tls is self._tls and len(self._carriers) <= self._width.now
        return fresh and (not self._closed or bool(self.waiting))

    def relay_is_busy(self, began: float) -> None:
        """Half as many will do for now."""
        self._width.halve(len(self._carriers), began)

    def pipelining_fails(self) -> None:
        """Another try in a while."""
        log.warning("the relay offers PIPELINING and fails at it: each command goes by itself for now")
        self._lockstep_until = time.monotonic() + LOCKSTEP_SECONDS

    # -- who carries

    def _call_somebody(self) -> None:
        """For a mail that waits: a connection that rests, or another one if there may be more."""
        if self.resting:
            self.resting.pop().wake()
        elif self._may_add:
            carrier = asyncio.get_running_loop().create_task(self._carry())
            self._carriers[carrier] = None
            self._being_made += 1
            carrier.add_done_callback(self._ended)

    @property
    def _may_add(self) -> bool:
        """Is there room, and a mail that no connection is being made for?

        The first of all is made alone: where it fails the others would, too, and a relay locks out who fails too often.
        """
        made = len(self._carriers) - self._being_made
        if not made:
            return not self._being_made
        return not self.is_full and self._being_made < len(self.waiting)

    async def _carry(self) -> None:
        carrier, tls = asyncio.current_task(), self._tls
        assert carrier is not None, "it runs as a task"
        session = await Login(self._settings, self._ehlo_name, tls, self._patience).session()
        pipelining = time.monotonic() >= self._lockstep_until
        connection = Connection(session, tls, self._patience, self, pipelining=pipelining)
        self._carriers[carrier] = connection
        self._being_made -= 1
        for _ in range(len(self.waiting) - self._being_made - 1):
            self._call_somebody()
        await connection.carry()

    def _ended(self, carrier: asyncio.Task[None]) -> None:
        connection = self._carriers.pop(carrier)
        if connection is None:
            self._being_made -= 1
        if carrier.cancelled():
            return
        error = carrier.exception()
        if isinstance(error, Exception):
            self._failed(error, connection)
        if self._is_waited_for:
            self._call_somebody()

    @property
    def _is_waited_for(self) -> bool:
        """Does anybody wait for a mail that no connection has begun with?"""
        return any(not sending.is_over for sending in self.waiting)

    def _failed(self, error: Exception, connection: Connection | None) -> None:
        why = f"it turns others away ({error.reason})" if isinstance(error, Held) else "a fault of ours"
        if not isinstance(error, Held):
            log.error("a connection to the relay ended by a fault of ours", exc_info=error)
        if connection is not None:
            return  # its mails know
        if self._carriers:
            self._width.narrow(len(self._carriers), why)  # they carry what waits
            return
        while self.waiting:
            self.waiting.popleft().fail(error)


def _tls_context(settings: SmtpSettings) -> ssl.SSLContext:
    """Raises `SettingsError` if a certificate or key cannot be used."""
    for file in _tls_files(settings):
        file.content()  # the library does not say which file it cannot read
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        fault = f"smtp.ca_file: {settings.ca_file}: holds no PEM certificate; name a file that does"
        raise SettingsError([fault]) from error
    if settings.client_cert_file is not None:
        try:
            # Without a password here the library would ask for one at the terminal.
            context.load_cert_chain(settings.client_cert_file, settings.client_key_file, password="")
        except OSError as error:
            reason = "no PEM certificate with its unencrypted key in it or in client_key_file; name files that fit"
            raise SettingsError([f"smtp.client_cert_file: {settings.client_cert_file}: {reason}"]) from error
    return context


def _tls_files(settings: SmtpSettings) -> list[NamedFile]:
    files = {
        "smtp.ca_file": settings.ca_file,
        "smtp.client_cert_file": settings.client_cert_file,
        "smtp.client_key_file": settings.client_key_file,
    }
    return [NamedFile(key, path) for key, path in files.items() if path is not None]
