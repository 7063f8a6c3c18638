"""Functions and methods take the arguments, with the defaults, that they take in pyepics 3.5.10."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import pytest

# One a line; long ones are continued by an indented line.
SIGNATURES = """
pv.get_pv(pvname, form='time', connect=False, context=None, timeout=5.0,
    connection_callback=None, access_callback=None, callback=None, verbose=False, count=None,
    auto_monitor=None, monitor_delta=None)
pv.fmt_time(tstamp=None)
pv.clear_pvcache()
ca.write(msg, newline=True, flush=True)
ca.create_channel(pvname, connect=False, auto_cb=True, callback=None, priority=0)
ca.connect_channel(chid, timeout=None, verbose=False)
ca.clear_channel(chid)
ca.get(chid, ftype=None, count=None, wait=True, timeout=None, as_string=False, as_numpy=True)
ca.put(chid, value, wait=False, timeout=30, callback=None, callback_data=None, ftype=None)
ca.get_with_metadata(chid, ftype=None, count=None, wait=True, timeout=None, as_string=False,
    as_numpy=True)
ca.get_complete(chid, ftype=None, count=None, timeout=None, as_string=False, as_numpy=True)
ca.get_ctrlvars(chid, timeout=5.0, warn=True)
ca.get_timevars(chid, timeout=5.0, warn=True)
ca.create_subscription(chid, use_time=False, use_ctrl=False, ftype=None, mask=None,
    callback=None, count=0, timeout=None)
ca.clear_subscription(event_id)
ca.replace_access_rights_event(chid, callback=None)
ca.poll(evt=1e-05, iot=1.0)
ca.pend_event(timeout=1e-05)
ca.pend_io(timeout=1.0)
ca.attach_context(context)
ca.show_cache(print_out=True)
ca.finalize_libca(maxtime=10.0)
ca.promote_type(chid, use_time=False, use_ctrl=False)
ca.PySEVCHK(func_name, status, expected=1)
functional.caput(pvname, value, wait=False, timeout=60.0, connection_timeout=5.0)
functional.caget(pvname, as_string=False, count=None, as_numpy=True, use_monitor=True,
    timeout=5.0, connection_timeout=5.0)
functional.cainfo(pvname, print_out=True, timeout=5.0, connection_timeout=5.0)
functional.camonitor_clear(pvname)
functional.camonitor(pvname, writer=None, callback=None, connection_timeout=5.0,
    monitor_delta=None)
functional.caget_many(pvlist, as_string=False, as_numpy=True, count=None, timeout=1.0,
    connection_timeout=5.0, conn_timeout=None)
functional.caput_many(pvlist, values, wait=False, connection_timeout=5.0, put_timeout=60)
pv.PV.__init__(self, pvname, callback=None, form='time', verbose=False, auto_monitor=None,
    count=None, connection_callback=None, connection_timeout=None, access_callback=None,
    monitor_delta=None)
pv.PV.force_connect(self, pvname=None, chid=None, conn=True, **kws)
pv.PV.force_read_access_rights(self)
pv.PV._clear_auto_monitor_subscription(self)
pv.PV._check_auto_monitor(self)
pv.PV.wait_for_connection(self, timeout=None)
pv.PV.connect(self, timeout=None)
pv.PV.clear_auto_monitor(self)
pv.PV.reconnect(self)
pv.PV.poll(self, evt=0.0001, iot=1.0)
pv.PV.get(self, count=None, as_string=False, as_numpy=True, timeout=None, with_ctrlvars=False,
    use_monitor=True)
pv.PV.get_with_metadata(self, count=None, as_string=False, as_numpy=True, timeout=None,
    with_ctrlvars=False, form=None, use_monitor=True, as_namespace=False)
pv.PV.put(self, value, wait=False, timeout=30.0, use_complete=False, callback=None,
    callback_data=None)
pv.PV._set_charval(self, val, call_ca=True, force_long_string=False)
pv.PV.get_ctrlvars(self, timeout=5, warn=True)
pv.PV.get_timevars(self, timeout=5, warn=True)
pv.PV.run_callbacks(self)
pv.PV.run_callback(self, index)
pv.PV.add_callback(self, callback=None, index=None, run_now=False, with_ctrlvars=True, **kw)
pv.PV.remove_callback(self, index=None)
pv.PV.clear_callbacks(self, with_access_callback=False, with_connect_callback=False)
pv.PV._getinfo(self)
pv.PV._getarg(self, arg)
pv.PV.disconnect(self, deepclean=True)
utils.str2bytes(st1)
utils.bytes2str(st1)
utils.strjoin(sep, seq)
utils.clib_search_path(lib)
dbr.Name(ftype, reverse=False)
dbr.native_type(ftype)
"""


def entries() -> list[str]:
    return [line for line in SIGNATURES.replace("\n    ", " ").splitlines() if line]


def without_annotations(function: Any) -> str:
    parameters = inspect.signature(function).parameters.values()
    bare = (str(p.replace(annotation=inspect.Parameter.empty)) for p in parameters)
    return f"({', '.join(bare)})"


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.partition("(")[0])
def test_signature(entry: str) -> None:
    path, parenthesis, rest = entry.partition("(")
    module, *names = path.split(".")
    found: Any = import_module(f"epicsx.{module}")
    for name in names:
        found = getattr(found, name)
    assert without_annotations(found) == parenthesis + rest
