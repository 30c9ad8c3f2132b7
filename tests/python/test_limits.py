"""What runs out: descriptors, and the memory of many clients together. Who is connected goes on, and nobody ends."""
import os
import socket
import struct
import time

from ZODB.utils import maxtid, z64

from cases import OneServer, ThreeNodes, wait_for, zrs_cluster
from objects import record
from raw import Closed, Raw

MB = 1 << 20
FILES = 200  # stands for the 1,024 that shells and containers give
FRAME = 129 * MB


def with_few_files(node):
    """Has the node's process start with a small limit of open files, which it can't raise."""
    command = node.command
    node.command = lambda: ['sh', '-c', f'ulimit -n {FILES} && exec "$@"', 'sh', *command()]


def crowd(case, address, count):
    """Connections that say nothing, as many as come in."""
    there = []
    for _ in range(count):
        try:
            there.append(Raw(address, greet=False))
        except OSError:
            break
    case.addCleanup(lambda: [one.close() for one in there])
    return there


class FewFiles(OneServer):
    """A process that may have few files open turns clients away, before anything else lacks a descriptor."""

    zrs_only = True

    @classmethod
    def prepare(cls, node):
        with_few_files(node)

    def test_a_crowd_is_turned_away_and_nobody_else_notices(self):
        here = self.raw()
        before = self.server.metric('zrs_turned_away_total')
        silent = crowd(self, self.server.address, 2 * FILES)
        wait_for('connections to be turned away', lambda: self.server.metric('zrs_turned_away_total') > before)
        here.commit(z64)
        for oid in [here.new_oid() for _ in range(20)]:
            here.commit(oid, data=record(0) + os.urandom(MB))
        self.assertLess(len(os.listdir(f'/proc/{self.server.pid}/fd')), FILES)
        here.call('pack', time.time(), True)
        with self.assertRaises(Closed):
            Raw(self.server.address)
        self.server.check()
        for one in silent:
            one.close()
        wait_for('room for clients', lambda: self.server.metric('zrs_connections') < 10)
        self.raw().commit(self.raw().new_oid())
        said = [line for line in self.server.log_text().splitlines() if 'turned away' in line]
        self.assertEqual(len(said), 1, said)

    def test_the_start_says_so(self):
        self.assertIn('the system lets this process have no more files open', self.server.log_text())


class FewFilesForThree(ThreeNodes):
    """The same in a cluster: no node ends, none loses the others, and the primary stays."""

    zrs_only = True

    @classmethod
    def prepare(cls, node):
        with_few_files(node)

    def test_a_crowd_at_every_node(self):
        primary = self.cluster.wait_primary()
        here = self.raw(primary.address)
        term = primary.status()['term']
        for node in self.cluster.nodes:
            crowd(self, node.address, 2 * FILES)
        for _ in range(50):
            here.commit(here.new_oid())
        self.cluster.check()
        self.assertEqual(primary.status()['term'], term)
        self.cluster.wait_same()


    def test_a_relay_has_two(self):
        primary = self.cluster.wait_primary()
        secondary = next(node for node in self.cluster.nodes if node is not primary)
        clients = crowd(self, secondary.address, 50)
        for c in clients:
            c.answer_greeting()
        for c in clients:
            c.begin_call('register', '1', False)
        served = [c for c in clients if self.is_registered(c)]
        refused = len(clients) - len(served)
        wait_for('all of them to be counted', lambda: secondary.metrics().get(
            'zrs_closed_total{why="too_many_relays"}', 0) == refused)
        self.assertGreater(len(served), 10)
        self.assertGreater(refused, 10)
        self.cluster.check()

    @staticmethod
    def is_registered(c):
        try:
            c.reply(c.number)
        except Closed:
            return False
        return True


class NotRegistered(ThreeNodes):
    """Who has not registered costs little, also behind a relay."""

    zrs_only = True

    def test_small_frames_and_short_names(self):
        primary = self.cluster.wait_primary()
        for node in self.cluster.nodes:
            c = self.raw(node.address, register=False)
            name, args = c.error('register', 'x' * 3000, False)
            self.assertEqual(name, 'builtins.ValueError')
            self.assertLess(len(args[0]), 600)
            # (A secondary relays a writer, and the primary has refused it: it may register once more.)
            c.send_bytes(struct.pack('>I', MB))
            self.assertTrue(c.is_closed())
        self.assertNotIn('x' * 300, primary.log_text())

    def test_who_says_to_be_a_peer_counts_until_it_has_proved_it(self):
        node, other = self.cluster.nodes[:2]
        # (`Hello` in src/raft/hello.rs, as in test_tls.py.)
        hello = b'P1' + bytes([1, 1, 2, 0, other.number, 0, node.number, 0, 0]) + bytes(16) + bytes([0])
        before = node.metric('zrs_connections')
        guests = crowd(self, node.address, 20)
        for guest in guests:
            guest.send(hello)
        for guest in guests:
            while len(guest.receive()) == 2:  # (a greeting; the challenge is longer)
                pass
        self.assertGreaterEqual(node.metric('zrs_connections'), 20)
        wait_for('them to be refused', lambda: node.metric('zrs_connections') <= before + 5)


class MuchMemory(OneServer):
    """The memory that all clients take together is bounded: who takes most of it is closed."""

    zrs_only = True

    def closed(self):
        try:
            return self.server.metrics().get('zrs_closed_total{why="crowded_out"}', 0)
        except zrs_cluster.Failure:  # too busy with a gigabyte of answers to answer this within three seconds
            return 0

    def begin_frame(self, size):
        """A client that has sent so much of the largest frame, and no more."""
        c = self.raw()
        c.send_bytes(struct.pack('>I', FRAME) + bytes(size))
        return c

    def test_frames_that_never_end(self):
        here, before = self.raw(), self.closed()
        glutton = self.begin_frame(120 * MB)
        others = [self.begin_frame(16 * MB) for _ in range(60)]
        wait_for('the largest to be closed', lambda: self.closed() == before + 1)
        self.assertTrue(glutton.is_closed())
        self.assertEqual([c for c in others if not c.is_silent(0.01)], [])
        here.commit(here.new_oid())
        self.assertLess(self.server.rss(), 2200 * MB)

    def test_answers_that_nobody_reads(self):
        here = self.raw()
        oid = here.new_oid()
        here.commit(oid, data=record(0) + bytes(100 * MB))
        before = self.closed()
        readers = [self.raw() for _ in range(14)]
        for reader in readers:
            reader.begin_call('loadBefore', oid, maxtid)
        wait_for('one to be closed', lambda: self.closed() > before, 30)
        here.commit(here.new_oid())
        answered = sum(self.takes_all(reader, 100 * MB) for reader in readers)
        self.assertEqual(answered, len(readers) - (self.closed() - before))
        self.assertGreater(answered, 5)

    @staticmethod
    def takes_all(reader, least):
        """Does the answer come whole, with so many bytes at least?"""
        reader.sock.settimeout(30)
        part, came = bytearray(MB), 0
        try:
            size = struct.unpack('>I', reader.sock.recv(4, socket.MSG_WAITALL).ljust(4, b'\0'))[0]
            while came < size and (got := reader.sock.recv_into(part, min(MB, size - came))):
                came += got
        except ConnectionError:
            return False
        return came == size >= least


class HalfFrames(OneServer):
    """Who begins a frame and falls silent is closed; who is slow is not, nor who says nothing at all."""

    zrs_only = True
    limit = 120

    def test_who_falls_silent(self):
        silent, slow, quiet = self.raw(), self.raw(), self.raw()
        for c in silent, slow:
            c.send_bytes(struct.pack('>I', MB) + bytes(50_000))

        def goes_on():
            slow.send_bytes(bytes(10))
            return self.server.metrics().get('zrs_closed_total{why="half_frame"}', 0)

        wait_for('the silent one to be closed', goes_on, 70, 1)
        self.assertTrue(silent.is_closed())
        self.assertTrue(slow.is_silent(0.1))
        quiet.commit(quiet.new_oid())
