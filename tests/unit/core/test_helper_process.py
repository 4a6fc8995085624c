"""The process for slow functions: results, errors, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import psutil
import pytest

from realtime.core.helper_process import HelperLost, HelperProcess
from realtime.errors import MalformedUpdate
from realtime.rooms.yjs_update import recount_pieces
from tests.support.harness import eventually, is_running


@pytest.fixture
def helper() -> Iterator[HelperProcess]:
    """Return a helper that is closed at the end."""
    process = HelperProcess()
    yield process
    process.close()


def test_result_and_error_of_a_function_are_passed_on(helper: HelperProcess) -> None:
    assert helper.call(max, [1, 3, 2]) == 3
    with pytest.raises(MalformedUpdate) as error:
        helper.call(recount_pieces, b"\1")
    assert error.value.detail == "ends within a number"
    assert helper.call(len, b"x" * 1_000_000) == 1_000_000


def test_functions_run_in_one_other_process_of_lower_priority(helper: HelperProcess) -> None:
    pid = helper.call(os.getpid)
    assert pid != os.getpid()
    assert helper.call(os.getpid) == pid
    assert helper.call(os.nice, 0) > os.nice(0)


def test_function_that_prints_does_not_disturb_the_results(helper: HelperProcess) -> None:
    assert helper.call(print, "printed") is None
    assert helper.call(len, "ab") == 2


def test_helper_that_was_killed_is_started_again(helper: HelperProcess) -> None:
    pid = helper.call(os.getpid)
    os.kill(pid, signal.SIGKILL)
    assert helper.call(os.getpid) != pid


def test_function_that_always_ends_the_process_raises(helper: HelperProcess) -> None:
    with pytest.raises(HelperLost):
        helper.call(os._exit, 1)
    assert helper.call(len, "ab") == 2


def test_close_ends_the_process(helper: HelperProcess) -> None:
    process = psutil.Process(helper.call(os.getpid))
    helper.close()
    assert not process.is_running()


async def test_helper_ends_with_a_parent_that_is_killed() -> None:
    program = """
        import os, signal
        from realtime.core.helper_process import HelperProcess
        helper = HelperProcess()
        print(helper.call(os.getpid), flush=True)
        signal.pause()
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        process = psutil.Process(int(parent.stdout.readline()))
        assert is_running(process)
        parent.kill()
    await eventually(lambda: not is_running(process))
