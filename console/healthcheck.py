"""A container's health check, of the standard library alone because it runs every few seconds.

`python -m console.healthcheck URL…` ends with 0 if each URL answers 200. Without a URL it asks for the `/healthz` of
whichever services run here at their usual ports: at least one of them must.
"""

import sys
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

USUAL = tuple(f"http://127.0.0.1:{port}/healthz" for port in (9101, 9102, 9103))
"""The default ports of `shared.settings`."""

ANSWER_SECONDS = 4.0

NOBODY = "nobody listens"


def check(urls: Sequence[str]) -> list[str]:
    """What is wrong, nothing if all is well."""
    answers = [_ask(url) for url in urls or USUAL]
    if not urls:
        answers = [answer for answer in answers if answer != NOBODY] or ["no service answers at its usual port"]
    return [answer for answer in answers if answer]


def _ask(url: str) -> str:
    """What is wrong at this URL; empty: nothing."""
    place = urlsplit(url)
    connection = HTTPConnection(place.netloc, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", place.path)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace").strip()
    except ConnectionRefusedError:
        return NOBODY
    except (OSError, HTTPException) as error:
        return f"{url}: {error}"
    finally:
        connection.close()
    return "" if answer.status == HTTPStatus.OK else f"{url}: {text}"


if __name__ == "__main__":
    sys.exit("\n".join(check(sys.argv[1:])) or 0)
