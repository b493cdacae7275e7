"""One connection to a relay, from its greeting to QUIT, and the table of what its replies and its silence mean.

aiosmtplib connects, secures and logs in. The steps of a mail are separate commands, so that an error knows its stage
and the claim is looked at right before DATA. `opportunistic` means: TLS wherever the relay offers it, verified as
under `mandatory`; a relay whose certificate does not hold is never spoken to in the clear instead.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum

from aiosmtplib import SMTP, SMTPException, SMTPResponseException, SMTPServerDisconnected, SMTPTimeoutError

from services.mailer.errors import ClaimLost, DeliveryError, Refusal, Refused, Trouble, Unavailable
from services.mailer.retries import hint_in
from services.mailer.settings import secret
from services.mailer.transports import Envelope, StillHeld
from shared.mail import one_line
from shared.settings import SettingsError, SmtpSettings, StarttlsPolicy

DETAIL_LENGTH = 500
"""Characters of a relay's answer that are worth keeping: a stranger's text of any length."""


class Stage(StrEnum):
    """How far we are with the relay."""

    CONNECT = "connect"
    TLS = "tls"
    LOGIN = "login"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"
    """The content is leaving, or has left: only the relay knows whether it has the mail."""


_PREPARATION = {Stage.CONNECT: Trouble.CONNECT, Stage.TLS: Trouble.TLS, Stage.LOGIN: Trouble.CREDENTIALS}
"""What fails here says nothing about a mail."""

_REFUSAL = {
    Stage.MAIL: Refusal.SENDER_REFUSED,
    Stage.RCPT: Refusal.RECIPIENT_REFUSED,
    Stage.DATA: Refusal.MESSAGE_REFUSED,
    Stage.CONTENT: Refusal.MESSAGE_REFUSED,
}

_EXPECTED = {Stage.MAIL: {250}, Stage.RCPT: {250, 251}, Stage.DATA: {354}, Stage.CONTENT: {250}}

TRANSIENT, PERMANENT = 4, 5
"""First digits of replies (RFC 5321 §4.2.1)."""

_CLOSING = 421
_AUTHENTICATION = {530, 534, 535, 538}
"""RFC 4954 §6: the relay wants another login, whatever command it answers."""


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


class Connection:
    """One connection to the relay, from its greeting to QUIT; one mail at a time."""

    def __init__(self, settings: SmtpSettings, ehlo_name: str, tls: ssl.SSLContext, patience: Patience) -> None:
        self.tls = tls
        self.greeting = ""
        self.is_clean = False
        """No mail is under way, and no answer is outstanding: it may be used for another mail."""
        self._settings = settings
        self._patience = patience
        self._stage = Stage.CONNECT
        self._expiry: asyncio.TimerHandle | None = None
        self._smtp = SMTP(
            hostname=settings.host,
            port=settings.port,
            local_hostname=ehlo_name,
            timeout=patience.command,
            use_tls=settings.implicit_tls,
            start_tls=False,
            tls_context=tls,
        )

    @property
    def is_open(self) -> bool:
        """Is there a connection, as far as one can know without asking?"""
        return self._smtp.is_connected

    @property
    def was_dead(self) -> bool:
        """Did it break off before the relay took anything of the mail?"""
        return self._stage is Stage.MAIL and not self.is_open

    async def prepare(self) -> None:
        """Connect, secure, log in. Raises `Unavailable`: nothing of this is the fault of a mail."""
        with self._translated():
            greeting = await self._smtp.connect(timeout=self._patience.connect)
            self.greeting = _detail(greeting.code, greeting.message)
            await self._smtp.ehlo()
            self._stage = Stage.TLS
            await self._secure()
            self._stage = Stage.LOGIN
            await self._log_in()
        self.is_clean = True

    async def hand_over(self, envelope: Envelope, still_held: StillHeld) -> str:
        """One mail transaction (RFC 5321 §3.3); the reply to its content."""
        options = []
        if envelope.needs_smtputf8:
            if not self._smtp.supports_extension("smtputf8"):
                raise Refused(Refusal.NO_SMTPUTF8, "the address needs SMTPUTF8 (RFC 6531), which the relay lacks")
            options = [b"SMTPUTF8"]
        self.is_clean = False
        await self._command(Stage.MAIL, b"MAIL", b"FROM:<%s>" % envelope.sender.encode(), *options)
        await self._command(Stage.RCPT, b"RCPT", b"TO:<%s>" % envelope.recipient.encode())
        if not still_held():
            raise ClaimLost
        await self._command(Stage.DATA, b"DATA")
        return await self._send_content(envelope.content)

    async def reset(self) -> None:
        """Forget a mail that went wrong (RSET), if the connection has outlived it."""
        if self.is_open and not self.is_clean:
            with suppress(SMTPException, OSError):  # then it is not clean, and is left
                await self._smtp.rset()
                self.is_clean = True

    def rest(self, expired: Callable[["Connection"], None]) -> None:
        """Wait for the next mail, but not for ever."""
        self._expiry = asyncio.get_running_loop().call_later(self._patience.idle, expired, self)

    def take(self) -> None:
        """The rest is over."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def leave(self) -> None:
        """Say QUIT where the relay expects a command, without waiting for its answer, and close."""
        if self.is_clean and self._smtp.protocol is not None and self.is_open:
            self._smtp.protocol.write(b"QUIT\r\n")
        self._smtp.close()

    async def _secure(self) -> None:
        policy = self._settings.starttls_policy
        if self._settings.implicit_tls or policy is StarttlsPolicy.DISABLED:
            return
        if policy is StarttlsPolicy.MANDATORY or self._smtp.supports_extension("starttls"):
            await self._smtp.starttls()
            await self._smtp.ehlo()  # RFC 3207 §4.2: what was said in the clear counts for nothing

    async def _log_in(self) -> None:
        username = self._settings.username
        if not username:
            return
        encrypted = self._smtp.get_transport_info("sslcontext") is not None
        if not encrypted and self._settings.starttls_policy is not StarttlsPolicy.DISABLED:
            raise Unavailable(Trouble.TLS, "the relay offers no TLS, and the password must not go in the clear")
        password = _password(self._settings)
        methods = self._smtp.server_auth_methods
        if "plain" in methods:
            await self._smtp.auth_plain(username, password)
        elif "login" in methods:
            await self._smtp.auth_login(username, password)
        elif "cram-md5" in methods:
            await self._smtp.auth_crammd5(username, password)
        else:
            raise Unavailable(Trouble.CREDENTIALS, "the relay offers no login that we know: PLAIN, LOGIN or CRAM-MD5")

    async def _command(self, stage: Stage, *words: bytes) -> None:
        self._stage = stage
        with self._translated():
            reply = await self._smtp.execute_command(*words)
        if reply.code not in _EXPECTED[stage]:
            raise self._judged(reply.code, reply.message)

    async def _send_content(self, content: bytes) -> str:
        """Content and final dot, transparent as in RFC 5321 §4.5.2, and the answer to them."""
        with self._translated():
            protocol = self._smtp.protocol
            if protocol is None:
                raise SMTPServerDisconnected("lost after DATA")
            protocol.write(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            self._stage = Stage.CONTENT
            reply = await protocol.read_response(timeout=self._patience.content)
        if reply.code not in _EXPECTED[Stage.CONTENT]:
            raise self._judged(reply.code, reply.message)
        self.is_clean = True
        return _detail(reply.code, reply.message)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The library's errors in our words. After any of them, and after 421, the connection is of no more use."""
        try:
            yield
        except DeliveryError:
            self._smtp.close()
            raise
        except (SMTPException, OSError, UnicodeError) as error:
            self._smtp.close()
            if isinstance(error, SMTPResponseException) and error.code > 0:
                raise self._judged(error.code, error.message) from error
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> Unavailable:
        """No answer: the first reason that fits."""
        detail = one_line(f"{type(error).__name__}: {error}", DETAIL_LENGTH)
        perhaps = self._stage is Stage.CONTENT
        if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
            return Unavailable(Trouble.TLS, detail, perhaps=perhaps)
        if self._stage in _PREPARATION:
            return Unavailable(_PREPARATION[self._stage], detail)
        if isinstance(error, SMTPTimeoutError):
            return Unavailable(Trouble.TIMEOUT, detail, perhaps=perhaps)
        if isinstance(error, OSError):  # SMTPServerDisconnected is one, too
            return Unavailable(Trouble.CONNECTION_LOST, detail, perhaps=perhaps)
        return Unavailable(Trouble.PROTOCOL, detail, perhaps=perhaps)

    def _judged(self, code: int, answer: str) -> DeliveryError:
        """A reply that is not the hoped-for one: the whole table of what it means."""
        detail, hint = _detail(code, answer), hint_in(answer)
        if code == _CLOSING:
            self._smtp.close()
            return Unavailable(Trouble.BUSY, detail, code=code, retry_after=hint)
        if self._stage in _PREPARATION:
            return Unavailable(_PREPARATION[self._stage], detail, code=code, retry_after=hint)
        if code in _AUTHENTICATION:
            self._smtp.close()
            return Unavailable(Trouble.CREDENTIALS, detail, code=code)
        if code // 100 == TRANSIENT:
            return Unavailable(Trouble.TEMPORARY, detail, code=code, retry_after=hint)
        if code // 100 == PERMANENT:
            return Refused(_REFUSAL[self._stage], detail, code=code)
        self._smtp.close()
        return Unavailable(Trouble.PROTOCOL, detail, code=code, perhaps=self._stage is Stage.CONTENT)


def _detail(code: int, answer: str) -> str:
    return one_line(f"{code} {answer}", DETAIL_LENGTH)


def _password(settings: SmtpSettings) -> str:
    try:
        return secret(settings.password, settings.password_file)
    except SettingsError as error:
        raise Unavailable(Trouble.CREDENTIALS, str(error)) from error
