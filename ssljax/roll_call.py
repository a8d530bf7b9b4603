"""Who is in a run of several processes: called by name before it starts, and missed by name when one is gone.

jax's own coordination service ends a process without a word of who was missing. So before it starts, every process
sends a card (its number, machine, versions, config) to process 0 on the coordinator's port, and process 0 answers all
of them: begin, or who is missing and what differs. The connections stay open: a process that dies closes its own, one
that is stopped sends no more beats, and process 0 tells the others which it was.

One JSON object a line, at most `MOST_BYTES` long; what else comes to the port is ignored.
"""

import contextlib
import dataclasses
import json
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ssljax.errors import UserError

MOST_BYTES = 1 << 20
_CARD_SECONDS = 10.0  # for a card to arrive on an open connection
_RETRY_SECONDS = 0.2
_GRACE_SECONDS = 2.0  # a mistake that all processes make is told by each of them itself
Card = Mapping[str, Any]


class Missing(UserError):
  """Some processes did not come.

  Attributes:
    cards: of those that did.
  """

  def __init__(self, text: str, cards: list[Card]):
    super().__init__(text)
    self.cards = cards


@dataclasses.dataclass
class _Peer:
  """One open connection."""

  index: int
  host: str
  socket: socket.socket
  heard: float = dataclasses.field(default_factory=time.monotonic)
  pending: bytes = b""

  @property
  def name(self) -> str:
    return f"process {self.index} ({self.host})"

  def send(self, message: Card) -> None:
    with contextlib.suppress(OSError):  # whoever is gone is noticed by the watch
      self.socket.sendall(json.dumps(message).encode() + b"\n")

  def receive(self) -> list[Card] | None:
    """Returns the messages that came; None where the other side closed or sent what is no message."""
    try:
      data = self.socket.recv(1 << 16)
      *lines, self.pending = (self.pending + data).split(b"\n")
      messages = [json.loads(line) for line in lines]
    except (OSError, ValueError):
      return None
    if not data or len(self.pending) > MOST_BYTES or not all(isinstance(message, dict) for message in messages):
      return None
    self.heard = time.monotonic()
    return messages


class Members:
  """The open connections of one process: process 0's to all others, the others' to process 0."""

  def __init__(self, peers: list[_Peer], cards: list[Card]):
    self._peers, self.cards = peers, cards
    self._leaving = threading.Event()
    self._thread: threading.Thread | None = None

  def watch(self, *, timeout: float, lost: Callable[[str], None]) -> None:
    """Starts a thread that calls lost("process 2 (machine) ...") once a process is gone.

    Args:
      timeout: seconds without a beat after which a process whose connection is still open counts as gone.
      lost: called in the thread, at most once.
    """
    self._thread = threading.Thread(target=self._watch, args=(timeout, lost), daemon=True, name="roll-call")
    self._thread.start()

  def leave(self, why: str = "") -> None:
    """Says goodbye, so that the others do not miss this process; with a reason, it tells them to stop as well."""
    self._leaving.set()
    if self._thread:
      self._thread.join()
    for peer in self._peers:
      peer.send({"lost": why} if why else {"bye": True})
      peer.socket.close()

  def _watch(self, timeout: float, lost: Callable[[str], None]) -> None:
    with selectors.DefaultSelector() as selector:
      here = list(self._peers)
      for peer in here:
        peer.heard = time.monotonic()
        selector.register(peer.socket, selectors.EVENT_READ, peer)
      beaten = 0.0
      while here and not self._leaving.is_set():
        if time.monotonic() - beaten > timeout / 4:
          beaten = time.monotonic()
          for peer in here:
            peer.send({"beat": True})
        for key, _ in selector.select(min(timeout / 8, 0.2)):
          found = self._heard(key.data)
          if found is not None:
            selector.unregister(key.fileobj)
            here.remove(key.data)
          if found:
            return self._tell(found, here, lost)
        silent = [peer for peer in here if time.monotonic() - peer.heard > timeout]
        if silent:
          return self._tell(f"{silent[0].name} was not heard for {timeout:g} s", here, lost)

  @staticmethod
  def _heard(peer: _Peer) -> str | None:
    """Returns None for a peer that is well, "" for one that said goodbye, else who is lost."""
    messages = peer.receive()
    if messages is None:
      return f"{peer.name} left the run"
    for message in messages:
      if "lost" in message:
        return str(message["lost"])
      if "bye" in message:
        return ""
    return None

  def _tell(self, text: str, here: list[_Peer], lost: Callable[[str], None]) -> None:
    for peer in here:
      peer.send({"lost": text})
    if not self._leaving.wait(_GRACE_SECONDS):
      lost(text)


def call(address: str, *, count: int, index: int, card: Card, timeout: float) -> Members:
  """Returns the members of a run once all `count` processes have come and their cards agree.

  Args:
    address: "host:port" of process 0.
    count: processes of the run.
    index: which of them this is.
    card: what is told of this process; "host" is its name, and "same" must be the same in all: {name: value}. Its
      "clock" is added, and in process 0's copy the time it "arrived" there, both in seconds since 1970.
    timeout: seconds to wait for the others.

  Raises:
    Missing: processes did not come in time (which).
    UserError: two have one number, or a card differs (in what).
  """
  host, _, port = address.rpartition(":")
  if not port.isdecimal() or not 0 < int(port) < 2**16:
    raise UserError(f"--coordinator: found {address!r}, expected HOST:PORT")
  if not 0 <= index < count:
    raise UserError(f"--process-id: found {index}, expected 0 to {count - 1} (--num-processes={count})")
  deadline = time.monotonic() + timeout
  card = {**card, "index": index, "count": count}
  if index == 0:
    return _gather(int(port), card, deadline, timeout)
  return _report(host.strip("[]"), int(port), card, deadline, timeout)


def _gather(port: int, card: Card, deadline: float, timeout: float) -> Members:
  """Process 0: waits for all, decides, and tells them."""
  peers: dict[int, _Peer] = {}
  cards = {0: card}
  with _listen(port) as server:
    while len(cards) < card["count"] and (left := deadline - time.monotonic()) > 0:
      server.settimeout(left)
      with contextlib.suppress(TimeoutError):
        connection, _ = server.accept()
        _admit(connection, peers, cards)
  differences = (_differs(card, other) for other in cards.values())
  missing = _missing(cards, card["count"], timeout)
  verdict = missing or next(filter(None, differences), "")
  ordered = [cards[i] for i in sorted(cards)]
  told = [{"index": c["index"], "host": c.get("host")} for c in ordered]
  for peer in peers.values():
    peer.send({"error": verdict} if verdict else {"members": told})
  if verdict:
    for peer in peers.values():
      peer.socket.close()
    raise Missing(verdict, ordered) if missing else UserError(verdict)
  return Members(list(peers.values()), ordered)


def _listen(port: int) -> socket.socket:
  try:
    return socket.create_server(("", port), backlog=4096, reuse_port=True)
  except OSError as error:
    raise UserError(f"--coordinator: cannot listen on port {port} ({error.strerror})") from error


def _admit(connection: socket.socket, peers: dict[int, _Peer], cards: dict[int, Card]) -> None:
  """Reads a card from a new connection; one that shows none is closed."""
  connection.settimeout(_CARD_SECONDS)
  connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
  peer = _Peer(-1, "?", connection)
  received = _first(peer)
  index = None if received is None else received.get("index")
  if not isinstance(index, int) or index < 1:
    connection.close()
  elif index in cards:
    peer.send({"error": f"--process-id: found {index} twice, {cards[index].get('host')} and {received.get('host')}"})
    connection.close()
  else:
    peer.index, peer.host = index, str(received.get("host"))[:200]
    peers[index], cards[index] = peer, {**received, "arrived": time.time()}


def _first(peer: _Peer) -> Card | None:
  """Returns the first message of a peer, None where there is none."""
  while (messages := peer.receive()) is not None:
    if messages:
      return messages[0]
  return None


def _missing(cards: Mapping[int, Card], count: int, timeout: float) -> str:
  missing = [str(index) for index in range(count) if index not in cards]
  if not missing:
    return ""
  which = f"process {missing[0]}" if len(missing) == 1 else f"processes {', '.join(missing)}"
  return f"hosts: {which} of {count} did not join within {timeout:g} s"


def _differs(first: Card, other: Card) -> str:
  """Returns what a card says otherwise than process 0's, "" for nothing."""
  if other["count"] != first["count"]:
    return f"--num-processes: {other.get('host')} found {other['count']}, expected {first['count']} as process 0"
  mine, its = first.get("same", {}), other.get("same", {})
  different = [key for key in sorted({*mine, *its}) if mine.get(key) != its.get(key)]
  if not different:
    return ""
  shown = "; ".join(f"{key} ({mine.get(key)!r} -> {its.get(key)!r})" for key in different[:5])
  return f"hosts: process {other['index']} ({other.get('host')}) differs from process 0 ({first.get('host')}): {shown}"


def _report(host: str, port: int, card: Card, deadline: float, timeout: float) -> Members:
  """The other processes: send the card and wait for the answer."""
  peer = _Peer(0, host, _connect(host, port, deadline, timeout))
  peer.send({**card, "clock": time.time()})
  peer.socket.settimeout(max(deadline - time.monotonic(), 0) + _CARD_SECONDS)  # process 0 may have begun to wait later
  answer = _first(peer) or {"error": f"--coordinator: process 0 at {host}:{port} did not answer within {timeout:g} s"}
  if "error" in answer:
    peer.socket.close()
    raise UserError(str(answer["error"]))
  return Members([peer], answer["members"])


def _connect(host: str, port: int, deadline: float, timeout: float) -> socket.socket:
  while True:
    try:
      connection = socket.create_connection((host, port), timeout=max(deadline - time.monotonic(), 0.1))
      connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
      return connection
    except OSError as error:
      if time.monotonic() + _RETRY_SECONDS > deadline:
        reason = error.strerror or error
        raise UserError(
          f"--coordinator: process 0 at {host}:{port} was not there within {timeout:g} s ({reason})"
        ) from error
      time.sleep(_RETRY_SECONDS)
