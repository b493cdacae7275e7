"""What an RQ job of ours names. Our mailers never call it: they read the job's argument and send the mail."""

from typing import NoReturn


class NotForRqWorkersError(Exception):
    """A stock RQ worker has taken a mail."""


def send_mail(_mail: object) -> NoReturn:
    """Tell whoever started a stock worker what to run instead. The mail is put back by the next mailer's sweep."""
    raise NotForRqWorkersError(
        "mails are sent by `access-mail start --service mailer`, not by `rq worker`; stop this worker: "
        "a mailer puts the mail back into the queue"
    )
