"""Golden bytes of Teleport's messages, and what they mean."""

import json
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from services.watcher.teleport.pb import auth_pb2, rules_pb2, types_pb2, users_pb2

FOLDER = Path(__file__).parent / "vectors"
VECTORS: list[dict[str, Any]] = json.loads((FOLDER / "vectors.json").read_text())
IDENTITIES: list[dict[str, Any]] = json.loads((FOLDER / "identities.json").read_text())

DECLARED_BY = (auth_pb2, rules_pb2, types_pb2, users_pb2)
"""Importing them is what makes their messages known to protobuf."""


def message(name: str) -> Message:
    """The vector of this name, parsed."""
    vector = next(vector for vector in VECTORS if vector["name"] == name)
    kind = GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(vector["message"]))
    return kind.FromString((FOLDER / vector["file"]).read_bytes())
