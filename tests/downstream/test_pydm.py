"""PyDM's plugin for pyepics: what its widgets show, write, and show when the IOC goes; without a screen."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
from support import wait_until

from epicsx.testing import SoftIOC

pytest.importorskip("pydm", reason="pip install epicsx[downstream]", exc_type=ImportError)

# A system library that Qt lacks ends the process, so another process tries first.
_TRIED = subprocess.run(
    [sys.executable, "-c", "from qtpy.QtWidgets import QApplication; QApplication([])"],
    capture_output=True,
    text=True,
    timeout=50,
)
if _TRIED.returncode:
    _WHY = (_TRIED.stderr.strip().splitlines() or ["it ended"])[-1]
    pytest.skip(
        f"Qt does not run here: {_WHY}. On Debian: apt-get install libgl1 libegl1 libxkbcommon0 libdbus-1-3 "
        "libfontconfig1 libglib2.0-0",
        allow_module_level=True,
    )

from pydm import data_plugins  # noqa: E402
from pydm.widgets import (  # noqa: E402
    PyDMByteIndicator,
    PyDMChannel,
    PyDMEnumComboBox,
    PyDMLabel,
    PyDMLineEdit,
    PyDMPushButton,
    PyDMSlider,
    PyDMWaveformPlot,
)
from qtpy.QtCore import QObject, Signal  # noqa: E402
from qtpy.QtWidgets import QApplication, QWidget  # noqa: E402


@pytest.fixture(scope="module")
def app() -> Any:
    """Give the application; one per process."""
    return QApplication.instance() or QApplication([])


Until = Callable[..., Any]


@pytest.fixture
def until(app: Any) -> Until:
    """Give `wait_until`, with Qt's events handled meanwhile."""

    def wait(condition: Callable[[], Any], timeout: float = 10.0, message: str = "") -> Any:
        def turn() -> Any:
            app.processEvents()
            return condition()

        return wait_until(turn, timeout, message=message)

    return wait


@pytest.fixture
def show(app: Any) -> Iterator[Callable[..., Any]]:
    """Give a function that makes a widget of a record and shows it; all are closed afterwards."""
    made: list[Any] = []

    def make(cls: Any, name: str, *args: Any) -> Any:
        widget = cls(*args, init_channel=f"ca://{name}")
        made.append(widget)
        widget.show()
        return widget

    yield make
    for widget in made:
        for channel in widget.channels() or ():
            channel.disconnect()
        widget.close()
        widget.deleteLater()
    app.processEvents()


SLOTS = (
    *(
        "connection",
        "value",
        "severity",
        "write_access",
        "enum_strings",
        "unit",
        "prec",
        "timestamp",
    ),
    *("upper_ctrl_limit", "lower_ctrl_limit", "upper_alarm_limit", "lower_alarm_limit"),
    *("upper_warning_limit", "lower_warning_limit"),
)


class Probe(QObject):  # type: ignore[misc]  # PyDM has no types
    """A channel without a widget, that remembers what comes on each of its slots."""

    to_float = Signal(float)
    to_text = Signal(str)
    to_array = Signal(numpy.ndarray)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.got: dict[str, list[Any]] = {slot: [] for slot in SLOTS}
        self.threads: set[int] = set()
        slots = {f"{slot}_slot": getattr(self, slot) for slot in SLOTS}
        self.channel = PyDMChannel(address=f"ca://{name}", **slots)

    def last(self, slot: str) -> Any:
        """What came last on that slot, or None."""
        return (self.got[slot] or [None])[-1]


def _keeper(slot: str) -> Callable[[Probe, Any], None]:
    def keep(self: Probe, value: Any) -> None:
        self.threads.add(threading.get_ident())
        self.got[slot].append(value)

    return keep


# Methods, because Qt runs those of an object in the object's thread.
for _slot in SLOTS:
    setattr(Probe, _slot, _keeper(_slot))


@pytest.fixture
def probe(app: Any) -> Iterator[Callable[..., Probe]]:
    """Give a function that makes a connected `Probe`."""
    made: list[Probe] = []

    def make(name: str, signal: str = "") -> Probe:
        each = Probe(name)
        if signal:
            each.channel.value_signal = getattr(each, signal)
        made.append(each)
        each.channel.connect()
        return each

    yield make
    for each in made:
        each.channel.disconnect()
    app.processEvents()


def test_the_plugin_is_that_of_pyepics(app: Any) -> None:
    plugin = data_plugins.plugin_for_address("ca://x")
    assert type(plugin).__name__ == "PyEPICSPlugin"


def test_a_label_shows_the_value_with_precision_and_units(
    ioc: SoftIOC, until: Until, show: Callable[..., Any]
) -> None:
    ioc.write("ao", 1.5)
    label = show(PyDMLabel, ioc["ao"])
    label.showUnits = True
    until(lambda: label.text() == "1.500 mm")
    ioc.write("ao", 2.25)
    until(lambda: label.text() == "2.250 mm")


def test_the_border_tells_the_alarm(ioc: SoftIOC, until: Until, show: Callable[..., Any]) -> None:
    ioc.write("ao", 0)
    label = show(PyDMLabel, ioc["ao"])
    until(lambda: label._alarm_state == 0)
    ioc.write("ao", 85)
    until(lambda: label._alarm_state == 1)
    ioc.write("ao", 95)
    until(lambda: label._alarm_state == 2)
    ioc.write("ao", 0)
    until(lambda: label._alarm_state == 0)


def test_a_line_edit_writes(ioc: SoftIOC, until: Until, show: Callable[..., Any]) -> None:
    ioc.write("double", 1)
    edit = show(PyDMLineEdit, ioc["double"])
    until(lambda: edit.text() == "1.000000" and edit.isEnabled())
    edit.setText("42.5")
    edit.send_value()
    until(lambda: float(ioc.read("double")) == 42.5)
    until(lambda: edit.text() == "42.500000")


def test_a_line_edit_writes_a_text(ioc: SoftIOC, until: Until, show: Callable[..., Any]) -> None:
    ioc.write("stringout", "none yet")
    edit = show(PyDMLineEdit, ioc["stringout"])
    until(lambda: edit.isEnabled() and edit.text() == "none yet")
    edit.setText("sample 12")
    edit.send_value()
    until(lambda: ioc.read("stringout") == "sample 12")


def test_a_line_edit_of_a_record_without_write_access(
    ioc: SoftIOC, until: Until, show: Callable[..., Any]
) -> None:
    edit = show(PyDMLineEdit, ioc["readonly"])
    until(lambda: edit._connected and not edit._write_access)
    until(lambda: not edit.isEnabled() or edit.isReadOnly())


def test_access_rights_that_change(ioc: SoftIOC, until: Until, probe: Callable[..., Probe]) -> None:
    p = probe(ioc["switched"])
    until(lambda: p.last("write_access") is True)
    try:
        ioc.write("access", 0)
        until(lambda: p.last("write_access") is False)
    finally:
        ioc.write("access", 1)
    until(lambda: p.last("write_access") is True)


def test_an_enum_label_and_combo_box(ioc: SoftIOC, until: Until, show: Callable[..., Any]) -> None:
    ioc.write("mbbo", 1)
    label = show(PyDMLabel, ioc["mbbo"])
    box = show(PyDMEnumComboBox, ioc["mbbo"], None)
    until(lambda: label.text() == "One" and box.currentText() == "One")
    assert [box.itemText(n) for n in range(box.count())] == ["Zero", "One", "Two", "Three"]
    box.setCurrentIndex(3)
    box.internal_combo_box_activated_int(3)
    until(lambda: ioc.read("mbbo") in ("Three", "3"))
    until(lambda: label.text() == "Three")


def test_a_button_and_a_slider_write(ioc: SoftIOC, until: Until, show: Callable[..., Any]) -> None:
    ioc.write("ao", 0)
    slider = show(PyDMSlider, ioc["ao"], None)
    until(lambda: slider._connected and slider._upper_ctrl_limit is not None)
    assert (slider.minimum, slider.maximum) == (-100.0, 100.0)
    button = PyDMPushButton(None, label="go", pressValue="55", init_channel=f"ca://{ioc['ao']}")
    try:
        until(lambda: button._connected and button.isEnabled())
        button.click()
        until(lambda: float(ioc.read("ao")) == 55)
        until(lambda: slider.value == 55)
    finally:
        for channel in button.channels():
            channel.disconnect()


def test_bits(ioc: SoftIOC, until: Until, show: Callable[..., Any]) -> None:
    ioc.write("longout", 5)
    bits = show(PyDMByteIndicator, ioc["longout"], None)
    until(lambda: bits.value == 5)


def test_every_fact_comes_on_its_slot_in_the_gui_thread(
    ioc: SoftIOC, until: Until, probe: Callable[..., Probe]
) -> None:
    ioc.write("ao", 1.5)
    p = probe(ioc["ao"])
    until(lambda: all(p.got[slot] for slot in SLOTS if slot != "enum_strings"))
    until(lambda: p.last("value") == 1.5)
    assert p.last("connection") is True
    facts = {slot: p.last(slot) for slot in SLOTS if slot not in ("timestamp", "enum_strings")}
    assert facts == {
        "connection": True,
        "value": 1.5,
        "severity": 0,
        "write_access": True,
        "unit": "mm",
        "prec": 3,
        "upper_ctrl_limit": 100.0,
        "lower_ctrl_limit": -100.0,
        "upper_alarm_limit": 90.0,
        "lower_alarm_limit": -90.0,
        "upper_warning_limit": 80.0,
        "lower_warning_limit": -80.0,
    }
    assert type(p.last("value")) is float
    assert p.threads == {threading.get_ident()}


def test_limits_that_change_are_told(
    ioc: SoftIOC, until: Until, probe: Callable[..., Probe]
) -> None:
    p = probe(ioc["ao"])
    until(lambda: p.last("unit") == "mm")
    try:
        ioc.write("ao.EGU", "um")
        until(lambda: p.last("unit") == "um")
    finally:
        ioc.write("ao.EGU", "mm")
    until(lambda: p.last("unit") == "mm")


@pytest.mark.parametrize(
    ("record", "value"),
    [
        ("wf:double:n", numpy.arange(10.0)),
        ("wf:short:n", numpy.arange(10)),
        ("wf:uchar:n", numpy.arange(10)),
        ("wf:float:n", numpy.arange(10.0)),
    ],
)
def test_arrays(
    ioc: SoftIOC, until: Until, probe: Callable[..., Probe], record: str, value: Any
) -> None:
    p = probe(ioc[record])
    until(lambda: p.got["value"])
    assert isinstance(p.last("value"), numpy.ndarray)
    assert numpy.array_equal(p.last("value"), value)


def test_an_array_with_one_element_and_then_more(
    ioc: SoftIOC, until: Until, probe: Callable[..., Probe]
) -> None:
    p = probe(ioc["w:double"], "to_array")
    until(lambda: p.last("write_access") is True)
    p.to_array.emit(numpy.array([7.0]))
    until(lambda: p.got["value"] and numpy.array_equal(numpy.atleast_1d(p.last("value")), [7.0]))
    p.to_array.emit(numpy.array([1.0, 2.0, 3.0]))
    until(lambda: numpy.array_equal(p.last("value"), [1.0, 2.0, 3.0]))


def test_a_plot_of_a_waveform(ioc: SoftIOC, until: Until, app: Any) -> None:
    plot = PyDMWaveformPlot(init_y_channels=[f"ca://{ioc['wf:double:n']}"])
    try:
        (curve,) = plot._curves
        until(lambda: curve.y_waveform is not None)
        assert numpy.array_equal(curve.y_waveform, numpy.arange(10.0))
    finally:
        for channel in plot.channels():
            channel.disconnect()
        plot.close()


def test_values_written_by_signal_come_back_as_they_are(
    ioc: SoftIOC, until: Until, probe: Callable[..., Probe]
) -> None:
    number = probe(ioc["double"], "to_float")
    text = probe(ioc["stringout"], "to_text")
    until(lambda: number.last("write_access") and text.last("write_access"))
    for value in range(20):
        number.to_float.emit(value + 0.25)
    text.to_text.emit("Grüße")
    until(lambda: number.last("value") == 19.25)
    until(lambda: text.last("value") == "Grüße")


def test_the_ioc_goes_and_comes_back(
    spare_ioc: Callable[..., SoftIOC],
    until: Until,
    show: Callable[..., Any],
    probe: Callable[..., Probe],
) -> None:
    ioc = spare_ioc('record(ao, "$(P)x") { field(VAL, "3") field(PINI, "YES") field(PREC, "1") }')
    label = show(PyDMLabel, ioc["x"])
    p = probe(ioc["x"])
    until(lambda: label.text() == "3.0" and label._connected and p.last("value") == 3.0)
    ioc.kill()
    until(lambda: not label._connected and not label.isEnabled(), 20)
    assert p.last("connection") is False
    ioc.restart()
    until(lambda: label._connected and label.isEnabled(), 30)
    ioc.write("x", 8)
    until(lambda: label.text() == "8.0" and p.last("value") == 8.0)
    assert p.last("connection") is True


def test_a_record_that_comes_up_later(
    spare_ioc: Callable[..., SoftIOC], until: Until, show: Callable[..., Any], ioc: SoftIOC
) -> None:
    name = ioc.prefix + "later"
    label = show(PyDMLabel, name)
    assert not label._connected
    spare_ioc(
        'record(longin, "$(P)later") { field(VAL, "77") field(PINI, "YES") }', prefix=ioc.prefix
    )
    until(lambda: label.text() == "77", 30)


def test_two_widgets_share_a_connection_that_ends_with_the_last(
    ioc: SoftIOC, until: Until, app: Any
) -> None:
    name = ioc["bulk:0950"]
    widgets = [PyDMLabel(init_channel=f"ca://{name}") for _ in range(2)]
    until(lambda: all(w.text() == "950" or w.text().startswith("950.") for w in widgets))
    plugin = data_plugins.plugin_for_address(f"ca://{name}")
    assert sum(name in key for key in plugin.connections) == 1
    for channel in widgets[0].channels():
        channel.disconnect()
    assert ioc.casr().channels.get(name) == 1
    for channel in widgets[1].channels():
        channel.disconnect()
    assert not any(name in key for key in plugin.connections)
    until(lambda: ioc.casr().monitors.get(name, 0) == 0)


@pytest.mark.unsteady_on_pyepics
def test_a_display_of_many(ioc: SoftIOC, until: Until, app: Any) -> None:
    window = QWidget()
    labels = [
        PyDMLabel(window, init_channel=f"ca://{ioc[f'bulk:{n:04d}']}") for n in range(600, 800)
    ]
    until(lambda: all(label._connected for label in labels), 30)
    # a label shows its channel's name until a value has come
    until(lambda: not any(label.text().startswith("ca:") for label in labels), 30)
    assert [float(label.text()) for label in labels] == [float(n) for n in range(600, 800)]
    for label in labels:
        for channel in label.channels():
            channel.disconnect()
    window.close()
