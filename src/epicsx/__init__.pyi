from . import aio as aio
from . import alarm as alarm
from . import autosave as autosave
from . import ca as ca
from . import compat as compat
from . import dbr as dbr
from . import device as device
from . import devices as devices
from . import enums as enums
from . import errors as errors
from . import functional as functional
from . import motor as motor
from . import multiproc as multiproc
from . import pv as pv
from . import reducers as reducers
from . import testing as testing
from . import utils as utils
from ._build_info import build_info as build_info
from ._ca import Subscription as Subscription
from ._channel import Channel as Channel
from ._channel import connect as connect
from ._channel import get_many as get_many
from ._channel import put_many as put_many
from ._dbr import Control as Control
from ._dbr import get_encoding as get_encoding
from ._dbr import set_encoding as set_encoding
from ._filters import filter_name as filter_name
from ._hdf5 import _to_hdf5 as _to_hdf5
from ._health import Health as Health
from ._health import LaneHealth as LaneHealth
from ._health import health as health
from ._images import Image as Image
from ._images import ImageStream as ImageStream
from ._images import images as images
from ._record import Recorder as Recorder
from ._request import Request as Request
from ._sample import Sample as Sample
from ._settings import configure as configure
from ._snapshot import Snapshot as Snapshot
from ._snapshot import restore as restore
from ._snapshot import snapshot as snapshot
from ._stream import Block as Block
from ._stream import Frame as Frame
from ._streams import Stream as Stream
from ._streams import stream as stream
from ._texts import strict as strict
from ._version import __version__ as __version__
from .alarm import Alarm as Alarm
from .compat import install_as_epics as install_as_epics
from .counts import ChannelStats as ChannelStats
from .counts import Counts as Counts
from .counts import Ledger as Ledger
from .counts import PVStats as PVStats
from .device import Device as Device
from .enums import DBE as DBE
from .enums import DBR as DBR
from .enums import ECA as ECA
from .enums import Access as Access
from .enums import Severity as Severity
from .enums import Status as Status
from .errors import AccessError as AccessError
from .errors import BadTypeError as BadTypeError
from .errors import BadValueError as BadValueError
from .errors import CAError as CAError
from .errors import CASeverityException as CASeverityException
from .errors import CATimeoutError as CATimeoutError
from .errors import ChannelAccessException as ChannelAccessException
from .errors import ChannelAccessGetFailure as ChannelAccessGetFailure
from .errors import DisconnectedError as DisconnectedError
from .errors import OverrunError as OverrunError
from .errors import PutError as PutError
from .errors import ServerError as ServerError
from .functional import INVALID_ALARM as INVALID_ALARM
from .functional import MAJOR_ALARM as MAJOR_ALARM
from .functional import MINOR_ALARM as MINOR_ALARM
from .functional import NO_ALARM as NO_ALARM
from .functional import _PVmonitors_ as _PVmonitors_
from .functional import caget as caget
from .functional import caget_many as caget_many
from .functional import cainfo as cainfo
from .functional import camonitor as camonitor
from .functional import camonitor_clear as camonitor_clear
from .functional import caput as caput
from .functional import caput_many as caput_many
from .functional import poll as poll
from .motor import Motor as Motor
from .multiproc import CAPool as CAPool
from .multiproc import CAProcess as CAProcess
from .pv import PV as PV
from .pv import get_pv as get_pv

__all__ = [
    "DBE",
    "DBR",
    "ECA",
    "INVALID_ALARM",
    "MAJOR_ALARM",
    "MINOR_ALARM",
    "NO_ALARM",
    "PV",
    "Access",
    "AccessError",
    "Alarm",
    "BadTypeError",
    "BadValueError",
    "Block",
    "CAError",
    "CAPool",
    "CAProcess",
    "CASeverityException",
    "CATimeoutError",
    "Channel",
    "ChannelAccessException",
    "ChannelAccessGetFailure",
    "ChannelStats",
    "Control",
    "Counts",
    "Device",
    "DisconnectedError",
    "Frame",
    "Health",
    "Image",
    "ImageStream",
    "LaneHealth",
    "Ledger",
    "Motor",
    "OverrunError",
    "PVStats",
    "PutError",
    "Recorder",
    "Request",
    "Sample",
    "ServerError",
    "Severity",
    "Snapshot",
    "Status",
    "Stream",
    "Subscription",
    "build_info",
    "caget",
    "caget_many",
    "cainfo",
    "camonitor",
    "camonitor_clear",
    "caput",
    "caput_many",
    "configure",
    "connect",
    "filter_name",
    "get_encoding",
    "get_many",
    "get_pv",
    "health",
    "images",
    "install_as_epics",
    "poll",
    "put_many",
    "restore",
    "set_encoding",
    "snapshot",
    "stream",
    "strict",
]
