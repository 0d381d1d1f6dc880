"""Set Features and Get Features: the number of queues, and the head of a Controller Data Queue.

Source: NVM Express Base Specification 2.1, Set Features command, Get Features command.
"""

from __future__ import annotations

from nvmelm.emulator.device import data_queue
from nvmelm.emulator.device.command_words import SET_FEATURES_10
from nvmelm.emulator.device.request import INVALID_FIELD, AdminRequest, CommandRefusal
from nvmelm.wire.opcodes import FeatureId, Opcode

_NUMBER_OF_QUEUES = 0x07
_FEATURE_NOT_SAVEABLE = 0x410D


def set_features(request: AdminRequest) -> tuple[int, bytes]:
    """Set a feature."""
    saved = SET_FEATURES_10.unpack(request.command.cdw10)["sv"]
    match request.select:
        case FeatureId.CONTROLLER_DATA_QUEUE if _has_data_queues(request):
            if saved:
                raise CommandRefusal(_FEATURE_NOT_SAVEABLE)
            return data_queue.set_head(request)
        case 0x07 | 0x0B:
            if saved:
                raise CommandRefusal(_FEATURE_NOT_SAVEABLE)
            return _number_of_queues(request), b""
    raise CommandRefusal(INVALID_FIELD)


def get_features(request: AdminRequest) -> tuple[int, bytes]:
    """Get the current value of a feature."""
    match request.select:
        case FeatureId.CONTROLLER_DATA_QUEUE if _has_data_queues(request):
            return data_queue.get_head(request)
        case 0x07 | 0x0B:
            return _number_of_queues(request), b""
    raise CommandRefusal(INVALID_FIELD)


def _has_data_queues(request: AdminRequest) -> bool:
    return request.is_primary and request.row.supports(Opcode.CONTROLLER_DATA_QUEUE)


def _number_of_queues(request: AdminRequest) -> int:
    """Return NCQA and NSQA, both 0's based; the admin queue pair does not count."""
    if request.select != _NUMBER_OF_QUEUES:
        return 0
    own = request.controller
    pairs = request.row.vq_private + request.primary["vq_primary"] if request.is_primary else own["nvq"]
    count = max(pairs - 2, 0)
    return count << 16 | count
