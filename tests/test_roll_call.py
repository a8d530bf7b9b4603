"""Processes that are called by name before a run and missed by name in it; here they are threads."""

import concurrent.futures
import contextlib
import queue
import socket
import time

import pytest

from ssljax import roll_call
from ssljax.errors import UserError


@pytest.fixture
def port():
  with socket.socket() as free:
    free.bind(("", 0))
    return free.getsockname()[1]


@pytest.fixture(autouse=True)
def no_grace(monkeypatch):
  monkeypatch.setattr(roll_call, "_GRACE_SECONDS", 0.0)


def card(index, **same):
  return {"host": f"machine{index}", "same": {"steps": 4} | same}


def come(port, index, count, *, timeout=30.0, **same):
  """What `call` returns, or the error."""
  try:
    return roll_call.call(f"localhost:{port}", count=count, index=index, card=card(index, **same), timeout=timeout)
  except UserError as error:
    return str(error)


def all_come(*calls):
  with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
    return [future.result() for future in [pool.submit(*call[:1], *call[1]) for call in calls]]


def run_of(port, count):
  return all_come(*((come, (port, index, count)) for index in range(count)))


def leave(members):
  for one in members:
    one.leave()


def test_all_come_and_go(port):
  members = run_of(port, 3)
  assert [c["host"] for c in members[0].cards] == ["machine0", "machine1", "machine2"]
  assert members[2].cards == [{"index": i, "host": f"machine{i}"} for i in range(3)]
  lost = queue.Queue()
  for one in members:
    one.watch(timeout=30.0, lost=lost.put)
  leave(reversed(members))
  assert lost.empty()


def test_who_did_not_come_is_named_to_all_who_did(port):
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    found = [pool.submit(come, port, index, 4, timeout=0.5).result for index in (0, 2)]
    expected = "hosts: processes 1, 3 of 4 did not join within 0.5 s"
    assert [result() for result in found] == [expected, expected]


def test_a_coordinator_that_is_not_there(port):
  assert come(port, 1, 2, timeout=0.3).startswith(
    f"--coordinator: process 0 at localhost:{port} was not there within 0.3 s"
  )


def test_what_differs_is_shown_to_all(port):
  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    calls = [
      pool.submit(come, port, 0, 3),
      pool.submit(come, port, 1, 3, steps=5, jax="1"),
      pool.submit(come, port, 2, 3),
    ]
    found = {call.result() for call in calls}
  assert found == {"hosts: process 1 (machine1) differs from process 0 (machine0): jax (None -> '1'); steps (4 -> 5)"}


def test_another_number_of_processes(port):
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    found = [pool.submit(come, port, 0, 2), pool.submit(come, port, 1, 3)]
    assert {call.result() for call in found} == {"--num-processes: machine1 found 3, expected 2 as process 0"}


def test_the_same_number_twice(port):
  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    calls = [pool.submit(come, port, 0, 3), pool.submit(come, port, 1, 3), pool.submit(come, port, 1, 3)]
    refused, _ = concurrent.futures.wait(calls, return_when=concurrent.futures.FIRST_COMPLETED)
    assert {call.result() for call in refused} == {"--process-id: found 1 twice, machine1 and machine1"}
    calls.append(pool.submit(come, port, 2, 3))
    leave(call.result() for call in calls if call not in refused)


def test_strangers_on_the_port_are_ignored(port, monkeypatch):
  monkeypatch.setattr(roll_call, "_CARD_SECONDS", 0.2)
  monkeypatch.setattr(roll_call, "MOST_BYTES", 1000)
  strangers = [b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"index": "1"}\n', b'{"index": 9e99}\n', b"x" * 5000, b""]
  with concurrent.futures.ThreadPoolExecutor(2) as pool, contextlib.ExitStack() as stack:
    first = pool.submit(come, port, 0, 2)
    time.sleep(0.1)
    for said in strangers:
      stack.enter_context(socket.create_connection(("localhost", port))).sendall(said)
    leave([come(port, 1, 2), first.result()])


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("machine", 2, 0), "--coordinator: found 'machine', expected HOST:PORT"),
    (("machine:x", 2, 0), "--coordinator: found 'machine:x', expected HOST:PORT"),
    (("machine:1", 2, 2), r"--process-id: found 2, expected 0 to 1 \(--num-processes=2\)"),
  ],
)
def test_flags_that_do_not_fit(arguments, message):
  address, count, index = arguments
  with pytest.raises(UserError, match=message):
    roll_call.call(address, count=count, index=index, card={}, timeout=1.0)


def test_a_port_that_is_taken(port):
  with socket.create_server(("", port)):
    assert come(port, 0, 2).startswith(f"--coordinator: cannot listen on port {port} (")


def watched(port, count, timeout):
  members, lost = run_of(port, count), [queue.Queue() for _ in range(count)]
  for one, told in zip(members, lost, strict=True):
    one.watch(timeout=timeout, lost=told.put)
  return members, lost


def test_a_process_that_dies_is_named_to_the_others(port):
  members, lost = watched(port, 3, 30.0)
  members[1]._peers[0].socket.shutdown(socket.SHUT_RDWR)
  assert [lost[i].get(timeout=20) for i in (0, 2)] == ["process 1 (machine1) left the run"] * 2
  leave(members)


def test_the_first_process_is_missed_too(port):
  members, lost = run_of(port, 3), [queue.Queue() for _ in range(3)]
  for index in (1, 2):  # a dying process watches nobody
    members[index].watch(timeout=30.0, lost=lost[index].put)
  for peer in members[0]._peers:
    peer.socket.shutdown(socket.SHUT_RDWR)
  assert [lost[i].get(timeout=20) for i in (1, 2)] == ["process 0 (localhost) left the run"] * 2
  leave(members)


def test_a_process_that_is_stopped_is_not_heard(port):
  members, lost = run_of(port, 3), [queue.Queue() for _ in range(3)]
  for index in (0, 2):
    members[index].watch(timeout=2.0, lost=lost[index].put)
  assert [lost[i].get(timeout=20) for i in (0, 2)] == ["process 1 (machine1) was not heard for 2 s"] * 2
  leave(members)


def test_a_reason_goes_with_the_one_who_leaves(port):
  members, lost = watched(port, 3, 30.0)
  members[2].leave("process 2 (machine2) stopped: no such file")
  assert [lost[i].get(timeout=20) for i in (0, 1)] == ["process 2 (machine2) stopped: no such file"] * 2
  leave(members[:2])
