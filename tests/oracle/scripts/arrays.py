"""Arrays: waveforms of every element type with no, one and many elements, and the other array records."""

from __future__ import annotations

from oracle.readings import follow, read_ca, read_functions, read_pv
from oracle.steps import Lab, step

TYPES = "char uchar short ushort long ulong int64 uint64 float double string enum".split()
OTHERS = "aai aao compress subarray aaotext".split()


def look(name: str) -> None:
    @step(name, timeout=40)
    def record(t: Lab) -> None:
        if name == "compress":  # filled from an array: all elements at once
            filler = t.epics.PV(t.p(name))
            filler.put([1.5, 2.5, 3.5], wait=True)
            t.drop(filler)
        full = t.p(name) if name == "compress" else t.s(name)
        patience = 0.3 if name.endswith(":0") or name.startswith("aao") else 5.0
        read_pv(t, full, patience)
        read_functions(t, full)
        read_ca(t, full, patience)
        follow(t, full)


for each in TYPES:
    for number in "0 1 n".split():
        look(f"wf:{each}:{number}")
    look(f"few:{each}")
for each in OTHERS:
    look(each)
