"""Input that no client sends: each gets a closed connection or the right error, is counted, and costs bounded
memory."""
import os
import pickle
import random
import socket
import struct
import time

from ZODB.utils import maxtid, p64, z64

from cases import STOCK, Case, Cluster, OneServer, both_encodings, wait_for, zrs_only
from objects import record
from raw import Closed, frame

MB = 1 << 20
# The memory that any of these tests may add to the server for good (its allocator does not give everything back).
ROOM = 64 * MB
COUNTED = 'zrs_bad_frames_total', 'zrs_closed_total', 'zrs_refused_peers_total'


class BadInput(OneServer):
    """Helpers."""

    is_template = True

    def setUp(self):
        super().setUp()
        self.watch = self.raw()
        self.rss = self.server.rss()
        self.before = self.counted()

    def counted(self):
        """How many bad things the server has counted, as an operator sees it."""
        if STOCK:
            return 0
        metrics = self.server.metrics()
        return sum(number for name, number in metrics.items() if name.partition('{')[0] in COUNTED)

    def assertCounted(self, by=1):
        if STOCK:
            return
        wait_for(lambda: f'{by} to be counted, not {self.counted() - self.before}: '
                 f'{ {k: v for k, v in self.server.metrics().items() if k.partition("{")[0] in COUNTED} }',
                 lambda: self.counted() - self.before >= by)

    def assertUnharmed(self, room=ROOM):
        """The server still serves, the client that was there all the time too, and has not grown."""
        self.server.check()
        self.assertIsNone(self.watch.call('ping'))
        c = self.raw()
        self.assertTrue(c.commit(c.new_oid()))
        grown = self.server.rss() - self.rss
        self.assertLess(grown, room, f'{grown / MB:.0f} MB more than before')

    def assertClosed(self, c, why=''):
        self.assertTrue(c.is_closed(10), why)


@both_encodings
class BadFrames(BadInput):
    """Bytes that are no frames, frames that are no calls."""

    def test_garbage_after_register(self):
        garbage = [b'', b'salty', b'\xff' * 40, b'\0' * 40, os.urandom(1000)]
        for message in garbage:
            c = self.raw()
            c.send(message)
            self.assertClosed(c, message)
        self.assertCounted(len(garbage))
        self.assertUnharmed()

    @zrs_only
    def test_garbage_instead_of_the_handshake(self):
        garbage = [b'', b'GET / HTTP/1.1\r\n\r\n', b'\x16\x03\x01\x02\0\1\0\1\xfc\3\3' + bytes(200), os.urandom(500)]
        for data in garbage:
            c = self.raw(greet=False)
            c.send_bytes(frame(data))
            self.assertClosed(c, data)
        self.assertUnharmed()

    @zrs_only
    def test_other_protocols_at_this_port(self):
        # Their first bytes are the length of a frame to us.
        for data in b'GET / HTTP/1.1\r\nHost: x\r\n\r\n', b'\x16\x03\x01\x02\0\1\0\1\xfc\3\3' + bytes(200), b'SSH-2.0-x\r\n':
            c = self.raw(greet=False)
            c.send_bytes(data)
            self.assertClosed(c, data)
        self.assertUnharmed()

    def test_half_a_frame_and_gone(self):
        for size in range(1, 40, 3):
            c = self.raw()
            c.send_bytes(frame(c.encode(1, 0, 'loadBefore', (p64(1), maxtid)))[:size])
            c.close()
        self.assertUnharmed()

    @zrs_only
    def test_a_length_of_4_gb(self):
        for register, greet in ((True, True), (False, True), (False, False)):
            c = self.raw(register=register, greet=greet)
            try:
                c.send_bytes(b'\xff\xff\xff\xff' + bytes(MB))
            except Closed:
                pass
            self.assertClosed(c, (register, greet))
        self.assertCounted(3)
        self.assertUnharmed()

    @zrs_only
    def test_before_register_frames_are_small(self):
        c = self.raw(register=False)
        try:
            c.send_bytes(struct.pack('>I', MB) + bytes(MB))
        except Closed:
            pass
        self.assertClosed(c)
        self.assertCounted()
        self.assertUnharmed()

    @zrs_only
    def test_memory_is_taken_as_bytes_come(self):
        open_ones = [self.raw() for _ in range(30)]
        for c in open_ones:
            c.send_bytes(struct.pack('>I', 100 * MB) + bytes(1000))
        time.sleep(.2)
        self.assertUnharmed()

    def test_forbidden_pickles(self):
        if self.msgpack:
            messages = [b'\xd9\xff', b'\xdd\xff\xff\xff\xff', b'\x94' * 100000, b'\xdf\xff\xff\xff\xff',
                        b'\x94\x01\x00\xc6\xff\xff\xff\xff', b'\xc7\xff\x05']
        else:
            folder = self.temporary_folder()
            touch = os.path.join(folder, 'touched')

            class Evil:
                def __reduce__(self):
                    return os.system, (f'touch {touch}',)

            evil = [pickle.dumps((1, 0, 'ping', (Evil(),)), protocol) for protocol in (0, 1, 2, 3)]
            deep = b'\x80\x03' + b'(' * 200000 + b't' * 200000 + b'.'
            nested = b'\x80\x03' + b']' + b']q\0a' * 100000 + b'.'
            bomb = b'\x80\x03]q\0(' + b''.join(b'h\0' for _ in range(10)) + b'e'
            for level in range(1, 12):
                bomb += b']q' + bytes([level]) + b'(' + (b'h' + bytes([level - 1])) * 10 + b'e'
            # (The same list ten times in a list, ten times in a list...: 10^12 leaves, if one copies instead of
            # refers.)
            messages = evil + [deep, nested, bomb + b'.', b'\x80\x03cbuiltins\neval\n(X\1\0\0\x001tR.',
                               b'\x80\x04\x8e' + b'\xff' * 8, b'\x80\x03B\xff\xff\xff\x7f', b'\x80\x03r\xff\xff\xff\xff.']
        for message in messages:
            c = self.raw()
            c.send(message)
            self.assertClosed(c, message[:60])
        self.assertCounted(len(messages))
        self.assertUnharmed()
        if not self.msgpack:
            self.assertEqual(os.listdir(folder), [])

    @zrs_only
    def test_forbidden_objects_in_an_extension(self):
        if self.msgpack:
            return
        c = self.raw()
        extension = b'}X\x01\0\0\0acos\nsystem\nX\4\0\0\0true\x85Rs'
        message = (b'\x80\x03(K\0K\1X\x09\0\0\0tpc_begin(K\1C\0C\0' + extension + b'NX\1\0\0\0 ttp0\n.').replace(b'p0\n', b'')
        c.send(message)
        self.assertClosed(c)
        self.assertCounted()
        self.assertUnharmed()

    @zrs_only
    def test_arguments_of_the_wrong_kind(self):
        # An error or a closed connection, for every call and whatever it is given.
        calls = '''get_info lastTransaction getInvalidations new_oids loadBefore loadSerial getTid history record_iternext
            undoLog undoInfo pack ping server_status set_client_label tpc_begin storea checkCurrentSerialInTransaction
            deleteObject restorea undoa storeBlobStart storeBlobChunk storeBlobEnd storeBlobShared vote tpc_finish tpc_abort
            sendBlob iterator_start iterator_next iterator_record_start iterator_record_next iterator_gc new_oid'''.split()
        values = [(), (None,), (1,), (-1,), (b'short',), ('text',), (b'x' * 9, b'x' * 9), (p64(1), None), (p64(1), p64(1)),
                  ([1, 2],), ({'a': 1},), (p64(1),) * 5, (1 << 70,) if not self.msgpack else (1 << 63,), (1.5, 2.5), (None,) * 12]
        c = None
        for call in calls:
            for args in values:
                if c is None:
                    c = self.raw()
                try:
                    c.send(c.encode(5, 0, call, args), c.encode(6, 0, 'ping', ()))
                    seen = 0
                    while seen != 6:
                        seen = c.decode(c.receive())[0]
                except Closed:
                    c.close()
                    c = None
        self.assertUnharmed()

    @zrs_only
    def test_mutilated_calls(self):
        chance = random.Random(20261122)
        c = self.raw()
        oid = c.new_oid()
        calls = [('storea', (oid, z64, record(1), 1)), ('loadBefore', (oid, maxtid)), ('vote', (1,)), ('history', (oid, 3)),
                 ('tpc_begin', (1, b'user', b'text', {'a': [1, 2]}, None, ' ')), ('getInvalidations', (z64,))]
        valid = [c.encode(chance.randrange(100), chance.randrange(2), *call) for call in calls]
        end = time.monotonic() + 3
        sent = 0
        while time.monotonic() < end or sent <= 100:
            c = self.raw()
            try:
                for _ in range(20):
                    message = bytearray(chance.choice(valid))
                    for _ in range(chance.randrange(1, 4)):
                        at = chance.randrange(len(message))
                        kind = chance.randrange(3)
                        if kind == 0:
                            message[at] = chance.randrange(256)
                        elif kind == 1:
                            del message[at:at + chance.randrange(1, 9)]
                        else:
                            message[at:at] = chance.randbytes(chance.randrange(1, 9))
                        if not message:
                            message = bytearray(b'x')
                    c.send(bytes(message))
                    sent += 1
            except (TimeoutError, Closed):
                pass
            c.close()
        self.assertUnharmed()


@zrs_only
class SlowClients(BadInput):
    """Those who ask and never read."""

    limit = 120

    def never_reading(self):
        c = self.raw(greet=False)
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        c.answer_greeting()
        c.call('register', '1', False)
        return c

    def test_who_asks_for_much_and_never_reads(self):
        oid = self.watch.new_oid()
        self.watch.commit(oid, data=os.urandom(MB))
        self.rss = self.server.rss()
        for _ in range(4):
            c = self.never_reading()
            c.sock.setblocking(False)
            asked = b''.join(frame(c.encode(i, 0, 'loadBefore', (oid, maxtid))) for i in range(2000))
            deadline = time.monotonic() + 1
            while asked and time.monotonic() < deadline:
                try:
                    asked = asked[c.sock.send(asked):]
                except BlockingIOError:
                    time.sleep(.01)
                except OSError:
                    break
        self.assertUnharmed(room=160 * MB)  # 2,000 answers would be 8,000 MB

    def test_who_never_reads_what_has_changed(self):
        deaf = [self.never_reading() for _ in range(5)]
        oids = self.watch.call('new_oids', 100) + self.watch.call('new_oids', 100)
        serial = z64
        for i in range(150):
            self.watch.begin(i)
            for oid in oids:
                self.watch.async_('storea', oid, serial, b'x', i)
            self.assertEqual(self.watch.vote(i), [])
            serial = self.watch.call('tpc_finish', i)
        self.assertUnharmed()
        for c in deaf:
            c.close()

    def test_many_who_say_nothing(self):
        silent = [self.raw(greet=False) for _ in range(300)]
        self.assertUnharmed()
        for c in silent:
            c.close()

    def test_who_pours_in_stores_without_end(self):
        # A large transaction goes to the disk as it comes, and away again with its client; the server's memory stays
        # as it is.
        c = self.raw()
        c.begin(1)
        data = os.urandom(4 * MB)
        for i in range(100):
            c.async_('storea', p64(1000 + i), z64, data, 1)
        self.assertEqual(c.vote(1), [])
        self.assertLess(self.server.rss() - self.rss, 300 * MB)
        c.close()
        self.assertUnharmed(room=300 * MB)
        self.assertEqual(self.watch.error('loadBefore', p64(1000), maxtid)[0], 'ZODB.POSException.POSKeyError')

    def test_an_object_that_is_too_large_is_refused_in_words(self):
        # (An error to the asynchronous store itself could only close the connection.)
        c = self.raw()
        c.begin(1)
        c.async_('storea', c.new_oid(), z64, bytes(128 * MB + 1), 1)
        kind, args = c.error('vote', 1)
        self.assertTrue(str(args), kind)
        self.assertTrue(c.commit(c.new_oid()))


@zrs_only
class Strangers(BadInput):
    """Who says it is a peer must prove it."""

    def test_a_peer_without_proof_is_refused(self):
        for more in b'', b'\0' * 32, b'\xff' * 200, os.urandom(64):
            c = self.raw(greet=False)
            c.send(b'P1' + more)
            try:
                for _ in range(3):
                    c.send(os.urandom(32))
            except Closed:
                pass
            self.assertClosed(c, more)
        self.assertCounted(4)
        self.assertUnharmed()


@zrs_only
class Secrets(Case):
    """A cluster whose members prove themselves by a shared secret."""

    is_template = False

    def secret(self, text):
        path = os.path.join(self.temporary_folder(), 'secret')
        with open(path, 'w') as f:
            f.write(text)
        os.chmod(path, 0o600)
        return path

    def test_who_does_not_know_the_secret_stays_outside(self):
        right, wrong = self.secret('correct horse battery staple\n'), self.secret('incorrect horse battery staple\n')
        with Cluster(3, ['--secret-file', right], start=False) as cluster:
            outsider = cluster.nodes[2]
            outsider.command = lambda: [word if word != right else wrong for word in type(outsider).command(outsider)]
            # All are needed to form a cluster.
            for node in cluster.nodes:
                node.start()
            time.sleep(2)
            self.assertIsNone(cluster.primary(), cluster.situation())
            outsider.kill()
            del outsider.command
            outsider.start()
            primary = cluster.wait_primary()
            cluster.wait_ready()
            before = primary.metric('zrs_refused_peers_total')
            c = self.raw(primary.address, greet=False)
            c.send(b'P1')
            try:
                for _ in range(3):
                    c.send(os.urandom(32))
            except Closed:
                pass
            self.assertTrue(c.is_closed())
            wait_for('it to be counted', lambda: primary.metric('zrs_refused_peers_total') > before)
            c = self.raw(primary.address)
            c.commit(c.new_oid())
