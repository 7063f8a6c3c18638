"""synApps' transform record: `Transform`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._texts import failed
from ..device import Device
from ..errors import BadValueError
from ._common import RecordDevice


class Transform(RecordDevice):
    """A transform record: sixteen rows, A to P, each with an input, an expression, a value and an output.

    The methods of a row answer None, and write nothing, for a row that is none.
    """

    attr_fmts = {
        "Value": "%s",
        "Input": "INP%s",
        "Input_Valid": "I%sV",
        "Expression": "CLC%s",
        "Output": "OUT%s",
        "Output_Valid": "O%sV",
        "Comment": "CMT%s",
        "Expression_Valid": "C%sV",
        "Previous_Value": "L%s",
    }
    rows = "ABCDEFGHIJKLMNOP"
    _nonpvs = (*Device._nonpvs, "attrs")

    def __init__(self, prefix: str, **kwargs: Any) -> None:
        fields = [fmt % row for fmt in self.attr_fmts.values() for row in self.rows]
        self.attrs = ["COPT", "PREC", *fields]
        super().__init__(prefix, **kwargs)

    def __validrow(self, row: object) -> bool:
        if isinstance(row, str) and len(row) == 1 and row in self.rows:
            return True
        return failed(BadValueError(f"no row of a transform record: {row!r}"), False)

    def get_row(self, row: str = "A") -> dict[str, Any] | None:
        """All there is of a row, by the names in ``attr_fmts``: ``'Input'`` is INPA of row A, and so on."""
        if not self.__validrow(row):
            return None
        return {label: self.get(fmt % row) for label, fmt in self.attr_fmts.items()}

    def set_row(self, row: str = "A", data: Mapping[str, Any] | None = None) -> None:
        """Write a row, given as `get_row` gives it; leaves out what the record does not let be written."""
        if not self.__validrow(row):
            return
        for label, value in (data or {}).items():
            if label in self.attr_fmts:
                pv = self.PV(self.attr_fmts[label] % row)
                if pv.write_access:
                    pv.put(value)

    def set_calc(self, row: str = "A", calc: str = "") -> None:
        """Set the expression of a row."""
        self._set("Expression", row, calc)

    def set_comment(self, row: str = "A", comment: str = "") -> None:
        """Set the comment of a row."""
        self._set("Comment", row, comment)

    def set_input(self, row: str = "A", input: str = "") -> None:
        """Set the PV from which a row takes its value."""
        self._set("Input", row, input)

    def _set(self, label: str, row: str, text: str) -> None:
        if self.__validrow(row):
            self.put(self.attr_fmts[label] % row, text)
