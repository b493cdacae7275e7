"""Mails over SMTP (RFC 5321): connections to one relay, kept for the next mails and dropped on any doubt."""

import ssl

from services.mailer.errors import DeliveryError, Unavailable
from services.mailer.settings import secret
from services.mailer.transports import Envelope, StillHeld
from services.mailer.transports.smtp_connection import Connection, Patience
from shared.settings import SettingsError, SmtpSettings


class SmtpTransport:
    """Connections to a relay, as many as mails are sent at once, kept for the next ones and dropped on any doubt."""

    def __init__(self, settings: SmtpSettings, ehlo_name: str, patience: Patience) -> None:
        """`ehlo_name`: the domain that we greet with. Raises `SettingsError` if a file cannot be read."""
        self._settings = settings
        self._ehlo_name = ehlo_name
        self._patience = patience
        self._idle: list[Connection] = []
        self._closed = False
        self.reload()

    def reload(self) -> None:
        """Read the files again. Mails go over new connections from now on, which are secured and logged in anew.

        Called in another thread than the loop's: it touches no connection.
        """
        secret(self._settings.password, self._settings.password_file)
        self._tls = _tls_context(self._settings)

    async def check(self) -> str:
        """Connect, secure and log in; what the relay greets with."""
        connection = await self._connect()
        connection.leave()
        return connection.greeting

    async def send(self, envelope: Envelope, still_held: StillHeld) -> str:
        """See `Transport`. A kept connection that turns out dead is no fault of the relay: another one is taken."""
        while (connection := self._kept()) is not None:
            try:
                return await self._send_on(connection, envelope, still_held)
            except Unavailable:
                if not connection.was_dead:
                    raise
        return await self._send_on(await self._connect(), envelope, still_held)

    async def close(self) -> None:
        """Leave the relay; connections in use follow when their mail is done."""
        self._closed = True
        self._leave_idle()

    async def _connect(self) -> Connection:
        connection = Connection(self._settings, self._ehlo_name, self._tls, self._patience)
        try:
            await connection.prepare()
        except BaseException:
            connection.leave()
            raise
        return connection

    async def _send_on(self, connection: Connection, envelope: Envelope, still_held: StillHeld) -> str:
        try:
            return await connection.hand_over(envelope, still_held)
        except DeliveryError:
            await connection.reset()
            raise
        finally:
            self._keep(connection)

    def _keep(self, connection: Connection) -> None:
        if self._closed or connection.tls is not self._tls or not connection.is_clean:
            connection.leave()
        else:
            connection.rest(self._expire)
            self._idle.append(connection)

    def _expire(self, connection: Connection) -> None:
        self._idle.remove(connection)
        connection.leave()

    def _kept(self) -> Connection | None:
        """The connection that rested least, if one is left that neither the relay nor a reload has ended."""
        while self._idle:
            connection = self._idle.pop()
            connection.take()
            if connection.is_open and connection.tls is self._tls:
                return connection
            connection.leave()
        return None

    def _leave_idle(self) -> None:
        while (connection := self._kept()) is not None:
            connection.leave()


def _tls_context(settings: SmtpSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:  # ssl.SSLError is one
        reason = "it holds no PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise SettingsError(
            [f"smtp.ca_file: cannot use {settings.ca_file}: {reason}; mend the path or the file"]
        ) from error
