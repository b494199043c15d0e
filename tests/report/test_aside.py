"""Work in another process."""

import os
import subprocess
import sys

import pytest

from photoz_lit.report.aside import aside


def whose(text: str) -> tuple[str, int]:
    return text.upper(), os.getpid()


def test_beside_threads_of_torch_nothing_is_forked() -> None:
    assert "torch" in sys.modules
    assert aside(whose, "a")() == ("A", os.getpid())


def test_in_this_process_errors_come_where_the_result_is_asked_for_too() -> None:
    result = aside(int, "x")
    with pytest.raises(ValueError, match="x"):
        result()


def test_elsewhere_another_process_does_it_and_its_errors_come_back() -> None:
    code = """
import os
from photoz_lit.report.aside import aside
os.cpu_count = lambda: 2
assert aside(os.getpid)() != os.getpid()
try:
    aside(int, "x")()
except ValueError:
    print("told")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "told\n"
