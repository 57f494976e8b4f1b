"""Faults in Python: a block, a decorator, a test. Each in a process of its own, in a namespace."""

from __future__ import annotations

import time

import pytest
from scene import Scene, told

from faultline.changes.model import State

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.slow]

HEAD = """
import asyncio, json, os, socket, sys, threading, time
import faultline
from faultline import errors

def took():
    began = time.monotonic()
    socket.create_connection(("127.0.0.1", 8080), 10).close()
    return time.monotonic() - began

def middle():
    return sorted(took() for _ in range(3))[1]

def slow(latency="100ms", **more):
    return faultline.fault("network.delay", latency=latency, interface="lo", **more)
"""


def say(scene: Scene, body: str) -> object:
    """Run a script that ends by printing JSON; what it printed."""
    return told(scene.script(HEAD + body))


def everything_is_undone(scene: Scene, count: int) -> None:
    assert scene.left() == []
    records = scene.records
    assert [str(record.end) for record in records] == ["recovered"] * count
    assert scene.round_trip() < 0.1


def test_a_block_has_the_fault_with_its_measurement_and_then_it_is_gone(scene: Scene) -> None:
    found = say(
        scene,
        """
began = time.monotonic()
with slow() as delay:
    entered = time.monotonic() - began
    inside = middle()
    seen = [delay.uid, delay.reading.effect, delay.reading.values["measured"]]
left = time.monotonic()
after = middle()
assert str(delay.record.end) == "recovered"
with delay:
    again = middle()
print(json.dumps({"inside": inside, "after": after, "again": again, "seen": seen,
                  "entered": entered, "second": delay.uid}))
""",
    )
    assert isinstance(found, dict)
    print(found)
    uid, effect, measured = found["seen"]
    assert effect == "effective"
    assert measured == pytest.approx(0.1, rel=0.2)
    assert min(found["inside"], found["again"]) > 0.15
    assert found["after"] < 0.1
    assert found["second"] != uid, "entered again, it is another fault"
    everything_is_undone(scene, 2)


def test_a_decorator_gives_each_call_a_fault_of_its_own_whatever_the_function_is(
    scene: Scene,
) -> None:
    found = say(
        scene,
        """
@slow()
def plain(n):
    '''Its words.'''
    return n, took()

@slow()
async def waits():
    await asyncio.sleep(0)
    return took()

@slow()
def steps():
    yield took()
    return took()

def through():
    last = yield from steps()
    assert last > 0.15

refused = 0
for wrong in (type("C", (), {}),):
    try:
        slow()(wrong)
    except errors.UsageError:
        refused += 1
gen = through()
first = next(gen)
ended = list(gen)
print(json.dumps([plain(7), plain.__doc__, asyncio.run(waits()), first, ended, refused]))
""",
    )
    assert isinstance(found, list)
    (number, plain), words, waited, stepped, ended, refused = found
    assert (number, words, ended, refused) == (7, "Its words.", [], 1)
    assert min(plain, waited, stepped) > 0.15
    everything_is_undone(scene, 3)


def test_nested_and_overlapping_faults_add_up_and_come_off_one_by_one(scene: Scene) -> None:
    found = say(
        scene,
        """
with slow("60ms"):
    one = middle()
    with slow("90ms"):
        two = middle()
    three = middle()

first, second = slow("60ms"), slow("90ms")
first.__enter__()
second.__enter__()
first.__exit__(None, None, None)
four = middle()
second.__exit__(None, None, None)
print(json.dumps([one, two, three, four, middle()]))
""",
    )
    assert isinstance(found, list)
    print(found)
    one, two, three, four, five = found
    assert five < 0.06
    assert one > 0.11
    assert one == pytest.approx(three, abs=0.05)
    assert two > one + 0.12, "both act at once"
    assert 0.17 < four < 0.27, "the one that was entered first is gone, the other acts"
    everything_is_undone(scene, 4)


def test_a_session_that_is_in_place_is_not_entered_twice_and_is_still_undone(scene: Scene) -> None:
    found = say(
        scene,
        """
delay = slow()
words = ""
with delay:
    try:
        with delay:
            words = "entered twice"
    except errors.UsageError as error:
        words = str(error)
    inside = middle()
print(json.dumps([words, inside, middle()]))
""",
    )
    assert isinstance(found, list)
    words, inside, after = found
    assert "in place already" in words
    assert after < 0.1 < inside
    everything_is_undone(scene, 1)


def test_an_exception_in_the_block_undoes_and_goes_on_its_way(scene: Scene) -> None:
    found = say(
        scene,
        """
seen = []
for kind in (ValueError, KeyboardInterrupt, SystemExit):
    try:
        with slow():
            raise kind("mine")
    except BaseException as error:
        seen.append([type(error).__name__, str(error), middle()])
print(json.dumps(seen))
""",
    )
    assert isinstance(found, list)
    assert [each[:2] for each in found] == [
        ["ValueError", "mine"],
        ["KeyboardInterrupt", "mine"],
        ["SystemExit", "mine"],
    ]
    assert max(each[2] for each in found) < 0.1
    everything_is_undone(scene, 3)


def test_a_fault_without_effect_raises_after_it_is_undone_unless_that_is_accepted(
    scene: Scene,
) -> None:
    found = say(
        scene,
        """
nobody = {"source": ["0.0.0.0/0", "::/0"], "exclude": True}
try:
    with slow(**nobody):
        print("inside")
except errors.NotEffective as error:
    words = [str(error), error.happened, error.exit_code]
with slow(**nobody, must_be_effective=False) as delay:
    effect = delay.reading.effect
for wrong in ({"latency": "100"}, {"latency": "100ms", "jutter": "1ms"}):
    try:
        faultline.fault("network.delay", interface="lo", **wrong).__enter__()
    except errors.InvalidParameter as error:
        words.append(error.field)
print(json.dumps([words, effect]))
""",
    )
    assert isinstance(found, list)
    (message, _, status, *fields), effect = found
    assert "unmeasured" in message
    assert "no packet can match" in message
    assert (status, effect, fields) == (4, "unmeasured", ["latency", "jutter"])
    everything_is_undone(scene, 2)


@pytest.mark.parametrize(
    "child", ["", "os.fork() or time.sleep(30)"], ids=["alone", "with-a-child"]
)
def test_the_death_of_the_process_undoes_its_fault_at_once(scene: Scene, child: str) -> None:
    program = scene.script(
        HEAD
        + f"""
with slow():
    {child}
    print("in place")
    time.sleep(60)
"""
    )
    program.until("in place")
    slow = scene.round_trip()
    died = program.kill()
    took = scene.wait(lambda: scene.round_trip() < slow / 2, 10)
    assert slow > 0.15
    assert took < 5, "its deadline is ten minutes away"
    scene.wait(lambda: scene.records[0].state is State.ENDED, 10)
    print(f"undone {time.monotonic() - died:.2f} s after the death of its process")
    for left in scene.processes():
        if "-u" in left.cmdline:
            left.id.send(9)
    everything_is_undone(scene, 1)


def test_a_forked_child_that_leaves_the_block_does_not_undo_its_parents_fault(
    scene: Scene,
) -> None:
    found = say(
        scene,
        """
with slow():
    pid = os.fork()
    if not pid:
        pass  # it leaves the block like its parent
    else:
        os.waitpid(pid, 0)
        inside = middle()
if not pid:
    os._exit(0)
print(json.dumps([inside, middle()]))
""",
    )
    assert isinstance(found, list)
    inside, after = found
    assert inside > 0.15
    assert after < 0.1
    everything_is_undone(scene, 1)


TESTS = """
import json, socket, time
import pytest

def ask(timeout):
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", 8080), timeout) as server:
        server.settimeout(timeout)
        server.sendall(b"GET /health HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n")
        assert b"200 OK" in server.recv(4096)
    return time.monotonic() - began

@pytest.mark.fault("network.delay", latency="200ms", interface="lo")
def test_a_patient_client_survives_200_ms():
    assert ask(10) > 0.6

@pytest.mark.fault("network.delay", latency="200ms", interface="lo")
def test_a_hasty_client_does_not():
    ask(0.1)

@pytest.mark.fault("network.delay", latency="100ms", interface="lo")
class TestBoth:
    @pytest.mark.fault("network.delay", latency="50ms", interface="lo")
    def test_marks_add_up(self):
        assert ask(10) > 0.5

def test_by_hand(fault):
    assert ask(10) < 0.2
    with fault("network.delay", latency="100ms", interface="lo") as delay:
        assert delay.reading.effect == "effective"
        assert ask(10) > 0.3
    assert ask(10) < 0.2

@pytest.mark.fault("network.delay", latency="1s", interface="nowhere0")
def test_never_runs_without_its_fault():
    print("IT RAN")
"""

CONF = """
def pytest_configure(config):
    if not config.pluginmanager.has_plugin("faultline"):
        from faultline.testing import plugin
        config.pluginmanager.register(plugin, "faultline")
"""


def test_a_test_can_say_that_it_must_survive_a_fault(scene: Scene) -> None:
    (scene.folder / "test_client.py").write_text(TESTS)
    (scene.folder / "conftest.py").write_text(CONF)
    program = scene.start(
        "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA", "--strict-markers", "test_client.py"
    )
    status = program.end()
    print(program.text)
    assert status == 1
    outcome = {
        line.split()[1].rpartition("::")[2]: line.split()[0]
        for line in program.lines
        if line.startswith(("PASSED ", "FAILED ", "ERROR "))
    }
    assert outcome == {
        "test_a_patient_client_survives_200_ms": "PASSED",
        "test_a_hasty_client_does_not": "FAILED",
        "test_marks_add_up": "PASSED",
        "test_by_hand": "PASSED",
        "test_never_runs_without_its_fault": "FAILED",
    }
    assert "TimeoutError" in program.text
    assert "nowhere0" in program.text
    assert "IT RAN" not in [line.strip() for line in program.lines]
    everything_is_undone(scene, 5)


def test_the_marker_is_described(scene: Scene) -> None:
    (scene.folder / "conftest.py").write_text(CONF)
    program = scene.start("-m", "pytest", "-p", "no:cacheprovider", "--markers")
    assert program.end() == 0
    assert "@pytest.mark.fault(id, **parameters)" in program.text
