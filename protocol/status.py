"""Why a side-car ends a stream, in the details of the status (google.rpc.ErrorInfo): the code alone is not enough.

UNAVAILABLE is what gRPC itself says of a dead connection, too; only a side-car gives it a reason.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

Reason = Literal["STARTING", "DRAINING", "QUEUE_FULL", "DIVERGED"]
# It takes nothing now, but will, or another one does.
BUSY: Final = frozenset({"STARTING", "DRAINING", "QUEUE_FULL"})
DOMAIN: Final = "refine.v1"


def trailing(code: grpc.StatusCode, sentence: str, reason: Reason) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata that carry a reason."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    status = status_pb2.Status(code=code.value[0], message=sentence, details=[detail])
    metadata: tuple[tuple[str, bytes], ...] = rpc_status.to_status(status).trailing_metadata
    return metadata


def reason_of(problem: Any) -> str | None:
    """The reason in a failed call's status; None if it is missing or cannot be read."""
    try:
        status = rpc_status.from_call(problem)
    except (ValueError, AttributeError):
        return None
    for detail in () if status is None else status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            return str(info.reason)
    return None
