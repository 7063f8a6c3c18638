"""Sub-interpreters: refused with a word, and the main one is as it was."""

from __future__ import annotations

from support import run_python

SUB = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
TRY = '''
import sys
sys.path[:] = {path!r}
try:
    {what}
except ImportError as error:
    assert "interpreter" in str(error), error
    print("refused")
else:
    print("imported")
sys.stdout.flush()
'''
for what in ("import epicsx", "import epicsx._ca", "from epicsx import Channel, testing", "import epicsx"):
    one = interpreters.create()
    interpreters.run_string(one, TRY.format(path=sys.path, what=what))
    interpreters.destroy(one)
import epicsx
epicsx.Channel, epicsx.PV
print("main")
"""


def test_a_sub_interpreter_is_refused_and_the_main_one_goes_on() -> None:
    result = run_python(SUB)
    assert result.stdout.split() == ["refused"] * 4 + ["main"]
