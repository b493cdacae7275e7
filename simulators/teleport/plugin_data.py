"""Plugin data of a simulated cluster: what each plugin has noted at each request, changed by compare-and-swap."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from grpc import StatusCode

from services.watcher.teleport.pb import auth_pb2, types_pb2
from simulators.teleport.errors import TraceError
from simulators.teleport.messages import ACCESS_REQUEST


@dataclass(frozen=True)
class Record:
    """All plugins' entries of one request."""

    ends: datetime
    """An hour after the access: the record is still there when the request's DELETE is handled."""
    entries: dict[str, dict[str, str]] = field(default_factory=dict)


class PluginData:
    """Records by request id."""

    def __init__(self) -> None:
        self.size_limit = 1_000_000
        """Bytes of keys and values that one record may hold."""
        self._records: dict[str, Record] = {}

    def get(self, request_id: str) -> Record | None:
        """Return the request's record."""
        return self._records.get(request_id)

    def find(self, wanted: types_pb2.PluginDataFilter) -> auth_pb2.PluginDataSeq:
        """Return what matches; nothing stored is an empty answer. Raises `TraceError` for another kind than requests.

        An item that has an entry of the wanted plugin holds those of all others too.
        """
        insist_on_requests(wanted.Kind)
        ids = [wanted.Resource] if wanted.Resource else list(self._records)
        records = ((request_id, self._records[request_id]) for request_id in ids if request_id in self._records)
        return auth_pb2.PluginDataSeq(
            PluginData=[
                _item(request_id, record)
                for request_id, record in records
                if not wanted.Plugin or wanted.Plugin in record.entries
            ]
        )

    def update(self, change: types_pb2.PluginDataUpdateParams, record: Record) -> None:
        """Compare and swap one plugin's entry in the request's record, which may be a new one; then store the record.

        An empty `Expect` compares nothing; in `Expect` an empty value means "not there", in `Set` it removes the key.
        Raises `TraceError` (CompareFailed, or BadParameter if the record would be too large).
        """
        before = record.entries.get(change.Plugin, {})
        for key, expected in sorted(change.Expect.items()):
            if before.get(key, "") != expected:
                raise TraceError(StatusCode.FAILED_PRECONDITION, f'expectations not met for field "{key}"')
        after = {key: value for key, value in (before | dict(change.Set)).items() if value}
        others = {plugin: entry for plugin, entry in record.entries.items() if plugin != change.Plugin}
        entries = others | ({change.Plugin: after} if after else {})
        if _size(entries) > self.size_limit:
            raise TraceError(StatusCode.INVALID_ARGUMENT, "plugin data size limit exceeded")
        self._records[change.Resource] = Record(record.ends, entries)

    def forget(self, now: datetime) -> None:
        """Drop the records whose time is over."""
        self._records = {request_id: record for request_id, record in self._records.items() if record.ends > now}


def insist_on_requests(kind: str) -> None:
    """Raise `TraceError` (BadParameter) for plugin data of anything but requests."""
    if kind != ACCESS_REQUEST:
        raise TraceError(StatusCode.INVALID_ARGUMENT, f'unsupported resource kind "{kind}"')


def _item(request_id: str, record: Record) -> types_pb2.PluginDataV3:
    entries = {plugin: types_pb2.PluginDataEntry(Data=entry) for plugin, entry in record.entries.items()}
    return types_pb2.PluginDataV3(
        Kind="plugin_data",
        SubKind=ACCESS_REQUEST,
        Version="v3",
        Metadata=types_pb2.Metadata(Name=request_id, Namespace="default"),
        Spec=types_pb2.PluginDataSpecV3(Entries=entries),
    )


def _size(entries: Mapping[str, Mapping[str, str]]) -> int:
    texts = [text for entry in entries.values() for pair in entry.items() for text in pair]
    return sum(len(text.encode()) for text in texts)
