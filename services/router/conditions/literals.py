"""The values of Go's literals (https://go.dev/ref/spec#Literals)."""

import re

LARGEST_INT = 2**63 - 1
LONGEST_NUMBER = 80

_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2}|[abfnrtv\\\"])|(\\)|([^\\]+)")
_CONTROLS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_BASES = {"0x": 16, "0b": 2, "0o": 8}


def text_of(literal: str) -> str:
    """The text in double quotes, its escapes resolved. Raises `ValueError`."""
    return b"".join(map(_octets, _ESCAPE.finditer(literal[1:-1]))).decode()


def _octets(part: re.Match[str]) -> bytes:
    """Hexadecimal and octal escapes stand for single octets, which together must be UTF-8."""
    escape, unknown, plain = part.groups()
    if unknown:
        raise ValueError("unknown escape sequence")
    if plain is not None:
        return plain.encode()
    if escape in _CONTROLS:
        return _CONTROLS[escape].encode()
    if escape[0] == "x":
        return bytes([int(escape[1:], 16)])
    if escape[0] in "uU":
        return chr(int(escape[1:], 16)).encode()
    return bytes([int(escape, 8)])


def raw_text_of(literal: str) -> str:
    """The text in back-ticks; Go drops carriage returns."""
    return literal[1:-1].replace("\r", "")


def int_of(literal: str) -> int:
    """A decimal, hexadecimal, octal or binary number of 64 bits. Raises `ValueError`."""
    digits = literal.lower().replace("_", "")
    if len(digits) > LONGEST_NUMBER:
        raise ValueError("the number is too large")
    if digits[:2] in _BASES:
        value = int(digits[2:], _BASES[digits[:2]])
    else:
        value = int(digits, 8 if digits[0] == "0" and len(digits) > 1 else 10)
    if value > LARGEST_INT:
        raise ValueError("the number is too large")
    return value


def float_of(literal: str) -> float:
    """A number with a fraction or an exponent."""
    return float(literal.replace("_", ""))
