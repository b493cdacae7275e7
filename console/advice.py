"""What an operator can do about what Redis, Teleport or the relay has answered to `access-mail check`."""

from redis.exceptions import AuthenticationError, RedisError

from services.mailer.errors import Held, Trouble, Unavailable
from services.watcher.teleport.errors import TeleportRefused, TeleportUnavailable
from shared.settings import MailgunSettings, SmtpSettings

SMTP = {
    Trouble.CONNECT: "see that smtp.host and smtp.port are right and that this host may connect to them",
    Trouble.TLS: "see smtp.starttls_policy, smtp.implicit_tls (for port 465) and smtp.ca_file",
    Trouble.CREDENTIALS: "see smtp.username and the password, and whether this relay wants a login",
    Trouble.PROTOCOL: "see that smtp.port is one where the relay speaks SMTP, and smtp.implicit_tls (for port 465)",
}

MAILGUN = {
    Trouble.CONNECT: "see that mailgun.base_url is right and that this host may connect to it",
    Trouble.TLS: "see that this host trusts the certificate of mailgun.base_url",
    Trouble.CREDENTIALS: "see mailgun.private_key, and whether mailgun.base_url is of the domain's region",
    Trouble.PROTOCOL: "see that mailgun.base_url is Mailgun's",
}

LATER = "try again later: the services do so by themselves"


def about_redis(error: RedisError) -> str:
    """What to do about this answer of Redis, or about none."""
    if isinstance(error, AuthenticationError):
        return "see the password, in redis.password_file or redis.url"
    return "see that it runs, that redis.url is right and that this host may connect to it"


def about_teleport(error: TeleportUnavailable | TeleportRefused) -> str:
    """What to do about this answer of Teleport, or about none."""
    if isinstance(error, TeleportUnavailable):
        return "see that teleport.addr is right and that this host may connect to it"
    return "see that teleport.addr and the identity are of the same cluster, and that the identity's user is there"


def about_relay(error: Held | Unavailable, relay: SmtpSettings | MailgunSettings) -> str:
    """What to do about this answer of the relay, or about none."""
    reason = Trouble.CONNECT if error.reason in (Trouble.TIMEOUT, Trouble.CONNECTION_LOST) else error.reason
    return (SMTP if isinstance(relay, SmtpSettings) else MAILGUN).get(reason, LATER)
