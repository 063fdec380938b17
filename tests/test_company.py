"""One process that works, and others that join it: who does what, and what happens where one of them fails."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from mowst.errors import InputError
from mowst.system import Settings
from mowst.system.company import ALONE, in_company

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")


class Joins:
    """Lets so many join when this process tells something for the first time."""

    def __init__(self, count):
        self.count, self.heard = count, []

    def hear(self, line, *, here):
        self.heard.append((line, here))

    def more(self, beside, left):
        return 0 if beside else min(self.count, left)


def alone(item, tell):
    tell((item, "begins"))
    tell((item, "ends"))
    return item, os.getpid()


def until_another_came(item, tell, folder):
    """Work on the first item until somebody has done another one; tell all the time, as training does."""
    (folder / str(item)).touch()
    tell((item, "begins"))
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
        tell((item, "still"))
    tell((item, "ends"))
    return item, os.getpid()


def failing(item, tell, error):
    if multiprocessing.parent_process() is not None:
        if error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        raise error
    tell(item)
    while item == 0 and multiprocessing.active_children():
        time.sleep(0.01)
        tell(item)
    return item


def test_where_none_join_no_process_is_started_and_no_thread(monkeypatch):
    joins, threads = Joins(0), threading.active_count()
    found = in_company(alone, alone, range(3), joins)
    assert found == [(item, os.getpid()) for item in range(3)]
    assert joins.heard == [((item, word), True) for item in range(3) for word in ("begins", "ends")]
    assert threading.active_count() == threads


def test_those_that_join_take_their_part_and_results_keep_the_order_of_the_items(tmp_path):
    joins, told = Joins(1), []
    work = partial(until_another_came, folder=tmp_path)
    found = in_company(work, work, [5, 3, 4, 1], joins, settings=Settings(), told=told.append)
    assert [item for item, _ in found] == [5, 3, 4, 1]
    places = {process for _, process in found}
    assert os.getpid() in places
    assert len(places) == 2
    for item, process in found:
        assert [word for who, word in told if who == item and word != "still"] == ["begins", "ends"]
        assert {here for (who, _), here in joins.heard if who == item} == {process == os.getpid()}
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    "error", [pytest.param(None, id="killed"), pytest.param(MemoryError(), id="no memory", marks=pytest.mark.slow)]
)
def test_where_one_of_them_is_lost_this_process_does_everything(error):
    work = partial(failing, error=error)
    with pytest.warns(UserWarning, match=ALONE):
        assert in_company(work, work, range(3), Joins(1)) == [0, 1, 2]
    assert not multiprocessing.active_children()


def test_an_error_of_another_process_is_raised_here():
    work = partial(failing, error=InputError("item 1 is wrong"))
    with pytest.raises(InputError, match="item 1 is wrong"):
        in_company(work, work, range(3), Joins(1))
    assert not multiprocessing.active_children()


def test_where_memory_is_too_small_here_the_others_are_ended_and_the_item_is_done_again(tmp_path):
    tries = []

    def here(item, tell):
        tries.append(item)
        tell(item)
        if len(tries) == 1:
            raise MemoryError
        return item

    with pytest.warns(UserWarning, match=ALONE):
        assert in_company(here, alone, [7, 8], Joins(1)) == [7, 8]
    assert tries[0] == tries[1] == 7
    with pytest.raises(MemoryError):  # there is nobody to end
        in_company(partial(failing_here, MemoryError()), alone, [7], Joins(0))


def failing_here(error, item, tell):
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError()])
def test_what_hearing_raises_ends_all(error):
    def told(line):
        if multiprocessing.active_children():
            raise error

    with pytest.raises(type(error)):
        in_company(partial(failing, error=error), alone, range(3), Joins(1), told=told)
    assert not multiprocessing.active_children()


UNGUARDED = """
import sys, time
sys.path[:0] = ["."]
from tests.test_company import Joins, failing
from functools import partial
from mowst.system.company import in_company
work = partial(failing, error=None)
print(in_company(work, work, [0, 1], Joins(1)))
"""


@pytest.mark.slow
def test_a_script_without_a_guard_does_everything_alone_and_says_why(tmp_path):
    (tmp_path / "script.py").write_text(UNGUARDED)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=True)
    assert done.stdout == "[0, 1]\n"
    assert done.stderr.count("UserWarning: workers: each process imports the script") == 1
