"""From a host name to a connection that is ready for mails: aiosmtplib connects, secures and logs in.

`opportunistic` means: TLS wherever the relay offers it, verified as under `mandatory`; a relay whose certificate does
not hold is never spoken to in the clear instead.
"""

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from aiosmtplib import SMTP, SMTPException, SMTPResponseException, SMTPTimeoutError

from services.mailer.errors import DeliveryError, Held, Trouble
from services.mailer.settings import secret
from services.mailer.transports.smtp_answers import BrokenOffError, Reply, Stage, judged, unanswered
from shared.settings import SettingsError, SmtpSettings
from shared.settings_values import StarttlsPolicy

UNKNOWN_COMMAND = {500, 502, 504}
"""What those answer EHLO with who know only HELO (RFC 5321 §3.2, §4.2.4)."""


@dataclass(frozen=True)
class Patience:
    """Seconds until a silent relay counts as gone."""

    connect: float = 20
    command: float = 60
    """RFC 5321 §4.5.3.2 would allow minutes; a mail here is worth an hour."""
    content: float = 300
    """After the final dot impatience makes duplicates (RFC 1047), so this one is long."""
    idle: float = 30
    """How long a connection is kept for the next mail."""
    wake: float = 3
    """For the first answer after a rest, which costs a relay nothing: firewalls drop what rests, and say nothing."""


@dataclass(frozen=True)
class Session:
    """A connection over which mails may be sent, and what its relay has said of itself."""

    transport: asyncio.Transport
    greeting: str
    extensions: Mapping[str, str]
    """Parameters by name in lower case (RFC 5321 §4.1.1.1), as announced under TLS where there is any."""


class Login:
    """The steps to a session, once."""

    def __init__(self, settings: SmtpSettings, ehlo_name: str, tls: ssl.SSLContext, patience: Patience) -> None:
        self._settings = settings
        self._patience = patience
        self._stage = Stage.CONNECT
        self._smtp = SMTP(
            hostname=settings.host,
            port=settings.port,
            local_hostname=ehlo_name,
            timeout=patience.command,
            use_tls=settings.implicit_tls,
            start_tls=False,
            tls_context=tls,
        )

    async def session(self) -> Session:
        """Connect, secure, log in. Raises `Held`: nothing of this is the fault of a mail."""
        try:
            with self._translated():
                greeting = await self._smtp.connect(timeout=self._patience.connect)
                await self._greet()
                await self._secure()
                await self._log_in()
                self._smtp.get_transport_info("peername")  # raises where the relay has closed the connection since
                # From here on the connection is ours; the library's end of it is never used again.
                transport = cast(asyncio.Transport, self._smtp.transport)  # uvloop's is one in all but its base
                extensions = {name.lower(): value for name, value in self._smtp.esmtp_extensions.items()}
        except BaseException:
            self._smtp.close()
            raise
        return Session(transport, str(Reply(greeting.code, greeting.message)), extensions)

    async def _greet(self) -> None:
        self._stage = Stage.EHLO
        try:
            await self._smtp.ehlo()
        except SMTPResponseException as error:
            if error.code not in UNKNOWN_COMMAND:
                raise
            await self._smtp.helo()

    async def _secure(self) -> None:
        policy = self._settings.starttls_policy
        if self._settings.implicit_tls or policy is StarttlsPolicy.DISABLED:
            return
        self._stage = Stage.TLS
        if policy is StarttlsPolicy.MANDATORY or self._smtp.supports_extension("starttls"):
            await self._smtp.starttls()
            self._stage = Stage.EHLO
            await self._smtp.ehlo()  # RFC 3207 §4.2: what was said in the clear counts for nothing

    async def _log_in(self) -> None:
        username = self._settings.username
        if not username:
            return
        encrypted = self._smtp.get_transport_info("sslcontext") is not None
        if not encrypted and self._settings.starttls_policy is not StarttlsPolicy.DISABLED:
            raise Held(Trouble.TLS, "the relay offers no TLS, and the password must not go in the clear")
        self._stage = Stage.AUTH
        methods = self._smtp.server_auth_methods
        if self._settings.oauth_token_file is not None:
            if "xoauth2" not in methods:
                raise Held(Trouble.CREDENTIALS, "the relay does not offer the login XOAUTH2, which a token is for")
            await self._smtp.auth_xoauth2(username, self._secret())
        elif "plain" in methods:
            await self._smtp.auth_plain(username, self._secret())
        elif "login" in methods:
            await self._smtp.auth_login(username, self._secret())
        elif "cram-md5" in methods:
            await self._smtp.auth_crammd5(username, self._secret())
        else:
            raise Held(Trouble.CREDENTIALS, "the relay offers no login that we know: PLAIN, LOGIN or CRAM-MD5")

    def _secret(self) -> str:
        """Password or token, read at each login."""
        try:
            return login_secret(self._settings)
        except SettingsError as error:
            raise Held(Trouble.CREDENTIALS, str(error)) from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The library's errors in our words."""
        try:
            yield
        except SMTPResponseException as error:
            if error.code <= 0:  # the library's own: it could not read the reply
                raise unanswered(self._stage, BrokenOffError(Trouble.PROTOCOL, error.message)) from error
            # `connect` ends with the greeting
            stage = Stage.GREETING if self._stage is Stage.CONNECT else self._stage
            raise judged(stage, Reply(error.code, error.message)) from error
        except DeliveryError:
            raise
        except (SMTPException, OSError, UnicodeError) as error:
            raise unanswered(self._stage, _broken_off(error)) from error


def login_secret(settings: SmtpSettings) -> str:
    """What the relay knows us by: a token or a password; empty without a login. Raises `SettingsError`."""
    if settings.oauth_token_file is not None:
        return secret(None, "smtp.oauth_token_file", settings.oauth_token_file)
    return secret(settings.password, "smtp.password_file", settings.password_file)


def _broken_off(error: Exception) -> BrokenOffError:
    """Why there is no answer: the first reason that fits."""
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        return BrokenOffError(Trouble.TLS, detail)
    if isinstance(error, SMTPTimeoutError):
        return BrokenOffError(Trouble.TIMEOUT, detail)
    if isinstance(error, OSError):  # SMTPServerDisconnected is one, too
        return BrokenOffError(Trouble.CONNECTION_LOST, detail)
    return BrokenOffError(Trouble.PROTOCOL, detail)
