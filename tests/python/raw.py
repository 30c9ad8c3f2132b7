"""A ZEO client without a ZEO client: frames over a plain socket, encoded and decoded by ZEO's own code.

For what the real client would never do, and for what it hides: the order of answers, garbage, silence.
"""
import socket
import struct
import time

from ZEO.asyncio.marshal import decoder, encoder
from ZODB.utils import p64, z64

from objects import record

TIMEOUT = 15
EMPTY = ((0, []), (0, ()))  # an answer without anything in it, in either encoding


class Closed(Exception):
    """The server has closed the connection."""


def frame(message):
    return struct.pack('>I', len(message)) + message


class Raw:
    """A connection; what the server sends on its own is kept in `pushed`."""

    def __init__(self, address, version=None, register=True, storage='1', read_only=False, greet=True):
        self.sock = socket.create_connection(address, TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b''
        self.pushed = []
        self.number = 0
        if greet:
            self.answer_greeting(version)
            if register:
                self.last = self.call('register', storage, read_only)

    def answer_greeting(self, version=None, timeout=TIMEOUT):
        self.greeting = self.receive(timeout)
        version = version or self.greeting
        self.send(version)
        self.speak(version)

    def speak(self, version):
        self.encode = encoder(version)
        self.decode = decoder(version)

    def send(self, *messages):
        self.send_bytes(b''.join(map(frame, messages)))

    def send_bytes(self, data):
        self.sock.settimeout(TIMEOUT)
        try:
            self.sock.sendall(data)
        except TimeoutError:
            raise
        except OSError as e:
            raise Closed(e) from e

    def receive(self, timeout=TIMEOUT):
        """The next message."""
        deadline = time.monotonic() + timeout
        size = struct.unpack('>I', self.peek(4, deadline)[:4])[0]
        data = self.peek(4 + size, deadline)
        self.buffer = data[4 + size:]
        return data[4:4 + size]

    def peek(self, size, deadline):
        """All that is there, at least `size` bytes. A timeout loses nothing."""
        while len(self.buffer) < size:
            self.sock.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self.sock.recv(1 << 18)
            except TimeoutError:
                raise
            except OSError as e:
                raise Closed(e) from e
            if not data:
                raise Closed()
            self.buffer += data
        return self.buffer

    def is_silent(self, seconds):
        """Does nothing come, and does it stay open, for so long?"""
        try:
            self.peek(len(self.buffer) + 1, time.monotonic() + seconds)
        except TimeoutError:
            return True
        except Closed:
            return False
        return False

    def is_closed(self, timeout=TIMEOUT):
        """Does the server close the connection within that time? (What it still says is read.)"""
        deadline = time.monotonic() + timeout
        try:
            while True:
                self.receive(max(deadline - time.monotonic(), 0.001))
        except Closed:
            return True
        except TimeoutError:
            return False

    def close(self):
        self.sock.close()

    # calls

    def begin_call(self, method, *args):
        self.number += 1
        self.send(self.encode(self.number, 0, method, args))
        return self.number

    def reply(self, number, timeout=TIMEOUT):
        """-> flag, result"""
        deadline = time.monotonic() + timeout
        while True:
            msgid, flag, name, args = self.decode(self.receive(max(deadline - time.monotonic(), 0.001)))
            if name == '.reply':
                assert msgid == number, (msgid, number)
                return flag, args
            assert flag and not msgid, (msgid, flag, name)
            self.pushed.append((name, args))

    def is_answered(self, number, seconds):
        """Is there an answer within so many seconds?"""
        try:
            self.answer = self.reply(number, seconds)
        except TimeoutError:
            return False
        return True

    def call(self, method, *args):
        flag, result = self.reply(self.begin_call(method, *args))
        assert not flag, (method, result)
        return result

    def error(self, method, *args):
        """-> class name, args of the error that is the answer"""
        flag, result = self.reply(self.begin_call(method, *args))
        assert flag == 2, (method, flag, result)
        return result

    def async_(self, method, *args):
        self.send(self.encode(0, 1, method, args))

    # transactions

    def begin(self, id, tid=None, extension=None):
        self.async_('tpc_begin', id, b'user', b'description', extension or {}, tid, ' ')

    def store(self, id, oid, serial, data=None):
        """Begins a transaction and stores one object."""
        self.begin(id)
        self.async_('storea', oid, serial, data or record(0), id)

    def vote(self, id):
        return list(self.call('vote', id))

    def commit(self, oid, serial=z64, data=None):
        """A whole transaction with one object -> tid"""
        id = self.number + 100000
        self.store(id, oid, serial, data)
        assert self.vote(id) == [], 'a conflict'
        return self.call('tpc_finish', id)

    def new_oid(self):
        """An object id that nobody else uses."""
        return self.call('new_oids', 1)[0]

    def invalidations(self):
        """-> [(tid, [oid])] as they came"""
        return [(args[0], list(args[1])) for name, args in self.pushed if name == 'invalidateTransaction']


__all__ = ['Closed', 'EMPTY', 'Raw', 'frame', 'p64', 'record', 'z64']
