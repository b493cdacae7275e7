"""Text that a stranger wrote, made fit to stand in a mail: nothing invisible, nothing that turns the reading direction.

Escaping for HTML is the templates' work, encoding for headers `mime`'s; here characters go that no reader should meet.
"""

import re

_LINE_BREAK = re.compile("\r\n|[\n\r\v\f\x85\u2028\u2029]")

_UNFIT = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029"  # controls, and what Unicode counts as line breaks
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction: a name must not rearrange what stands beside it
    "\ud800-\udfff"  # surrogates: no UTF-8 for them
    "\ufff9-\ufffb\ufeff\U000e0000-\U000e007f]"  # annotations and tags: text that only machines see
)


def line(text: str, limit: int) -> str:
    """One line of at most `limit` characters, single spaces between its words; cut ones end in an ellipsis."""
    if not text.isprintable():  # else none of its characters is unfit, and none breaks a line
        text = _UNFIT.sub("", _LINE_BREAK.sub(" ", text))
    return _cut(" ".join(text.split()), limit)


def lines(text: str, limit: int, most: int) -> tuple[str, ...]:
    """Its lines, `limit` characters in all and `most` lines at the most, no two empty ones in a row."""
    if not text:
        return ()
    clean = text
    if not text.isprintable():  # see `line`
        clean = _UNFIT.sub("", _LINE_BREAK.sub("\n", text)).expandtabs(4)
    stripped = [each.rstrip() for each in clean.strip().split("\n")]
    single = [each for position, each in enumerate(stripped) if each or stripped[position - 1]]
    kept = [each.rstrip() for each in _cut("\n".join(single), limit).split("\n")]
    return tuple(kept if len(kept) <= most else [*kept[: most - 1], "…"]) if any(kept) else ()


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
