"""Black box forms of what upstream tests only inside the server's process.

Upstream checks a part of the protocol by calling ``ZEOStorage`` objects or by
patching a server in the same process. These tests ask the same over the wire,
so that leaving out the originals (see excluded.txt) leaves no hole. They also
pin the rules of the wire itself (greeting, framing, errors, closing).

They speak with the server through a plain socket; encoding and decoding is
ZEO's own. Where the stock server fails one of them, excluded.txt says why.
"""
import os
import select
import socket
import threading
import time
import unittest

import transaction
import ZEO
import ZEO.interfaces
import ZODB
import ZODB.blob
import ZODB.interfaces
from BTrees.Length import Length
from ZEO._forker import start_zeo_server
from ZEO.Exceptions import ClientDisconnected
from ZEO.tests import testssl
from ZODB.Connection import TransactionMetaData
from ZODB.POSException import ReadOnlyError
from ZODB.tests.MinPO import MinPO
from ZODB.tests.StorageTestBase import zodb_pickle
from ZODB.utils import maxtid, p64, u64, z64
from zope.testing import setupstack

from raw import TIMEOUT, Raw, frame


class Client(Raw):
    """A plain connection; what it commits without data of its own is a record that holds the object's number."""

    def commit(self, oid, serial=z64, data=None):
        return super().commit(oid, serial, data or record(u64(oid)))


def record(value):
    return zodb_pickle(MinPO(value))


FILE = '<filestorage>\npath Data.fs\n</filestorage>\n'
BLOB = ('<blobstorage>\nblob-dir blobs\n<filestorage>\npath Data.fs\n'
        '</filestorage>\n</blobstorage>\n')


class Base(setupstack.TestCase):

    def setUp(self):
        self.setUpDirectory()
        self.addCleanup(transaction.abort)

    def start(self, conf=FILE, port=0, keep=False, log=None, **zeo_conf):
        addr, stop = start_zeo_server(
            conf, zeo_conf or None, port, keep=keep, log=log)
        self.addCleanup(stop)
        return addr, stop

    def raw(self, *args, **kw):
        c = Client(*args, **kw)
        self.addCleanup(c.close)
        return c

    def client(self, addr, **kw):
        c = ZEO.client(addr, **kw)
        self.addCleanup(c.close)
        return c


class WireTests(Base):

    def setUp(self):
        super().setUp()
        self.addr, self.stop = self.start()

    def protocol(self):
        return b'M5' if os.environ.get('ZEO_MSGPACK') else b'Z5'

    def test_greeting_comes_first(self):
        with socket.create_connection(self.addr, TIMEOUT) as s:
            data = b''
            while len(data) < 6:
                more = s.recv(6 - len(data))
                self.assertTrue(more)
                data += more
        self.assertEqual(data, b'\0\0\0\2' + self.protocol())

    def test_client_may_choose_the_other_encoding(self):
        other = b'Z5' if self.protocol() == b'M5' else b'M5'
        c = self.raw(self.addr, version=other)
        self.assertEqual(c.call('lastTransaction'), z64)

    def test_bad_version_is_refused(self):
        for version in b'Z4', b'Z309', b'what':
            c = self.raw(self.addr, greet=False)
            c.receive()
            c.send(version)
            self.assertTrue(c.is_closed(), version)

    def test_fragments_and_batches(self):
        c = self.raw(self.addr)
        one = c.encode(1001, 0, 'ping', ())
        two = c.encode(1002, 0, 'lastTransaction', ())
        data = frame(one) + frame(two)
        for i in range(len(data)):
            c.sock.sendall(data[i:i + 1])
        self.assertEqual(c.reply(1001), (0, None))
        self.assertEqual(c.reply(1002), (0, z64))
        c.send(*[c.encode(i, 0, 'ping', ()) for i in range(1, 501)])
        for i in range(1, 501):     # in order
            self.assertEqual(c.reply(i), (0, None))

    def test_any_message_id_comes_back(self):
        # ClientStorage uses (oid, tid) as the id of loadBefore calls.
        c = self.raw(self.addr)
        c.commit(p64(1))
        id = p64(1), maxtid
        c.send(c.encode(id, 0, 'loadBefore', (p64(1), maxtid)))
        flag, (data, tid, end) = c.reply(id)
        self.assertEqual((flag, data, end), (0, record(1), None))

    def test_keep_alive(self):
        c = self.raw(self.addr, register=False)
        c.send(c.encode(-1, 0, '.reply', None))
        self.assertEqual(c.call('register', '1', False), z64)
        c.send(c.encode(-1, 0, '.reply', None))
        self.assertEqual(c.call('ping'), None)
        self.assertEqual(c.pushed, [])

    def test_garbage_closes(self):
        for garbage in b'salty', b'', b'\xff' * 40:
            c = self.raw(self.addr)
            c.send(garbage)
            self.assertTrue(c.is_closed())
        self.raw(self.addr).call('ping')

    def test_unknown_method_closes(self):
        c = self.raw(self.addr)
        c.begin_call('open_the_pod_bay_doors')
        self.assertTrue(c.is_closed())

    def test_nothing_but_register_first(self):
        c = self.raw(self.addr, register=False)
        c.begin_call('lastTransaction')
        self.assertTrue(c.is_closed())

    def test_register_only_once(self):
        c = self.raw(self.addr)
        c.begin_call('register', '1', False)
        self.assertTrue(c.is_closed())

    def test_register_unknown_storage(self):
        c = self.raw(self.addr, register=False)
        class_, args = c.error('register', 'no such', False)
        self.assertEqual(class_, 'builtins.ValueError')
        # May be tried again:
        self.assertEqual(c.call('register', '1', False), z64)

    def test_error_in_sync_call(self):
        c = self.raw(self.addr)
        class_, args = c.error('loadBefore', p64(9), maxtid)
        self.assertEqual((class_, tuple(args)),
                         ('ZODB.POSException.POSKeyError', (p64(9),)))
        self.assertEqual(c.call('ping'), None)

    def test_error_in_async_call_closes(self):
        c = self.raw(self.addr)
        c.async_('storea', p64(1), z64, record(1), 42)
        self.assertTrue(c.is_closed())

    def test_second_tpc_begin(self):
        c = self.raw(self.addr)
        begin = lambda id: c.async_(
            'tpc_begin', id, b'', b'', {}, None, ' ')
        begin(1)
        begin(1)    # ignored
        self.assertEqual(c.call('ping'), None)
        begin(2)    # an error
        self.assertTrue(c.is_closed())

    def test_out_of_place_calls(self):
        c = self.raw(self.addr)
        class_, args = c.error('vote', 42)
        self.assertEqual(class_, 'ZODB.POSException.StorageTransactionError')
        self.assertEqual(c.call('tpc_finish', 42), None)
        self.assertEqual(c.call('tpc_abort', 42), None)
        c.store(42, p64(1), z64, record(1))
        class_, args = c.error('vote', 43)
        self.assertEqual(class_, 'ZODB.POSException.StorageTransactionError')
        # Finish without vote:
        class_, args = c.error('tpc_finish', 42)
        self.assertEqual(c.call('lastTransaction'), z64)
        self.assertEqual(c.call('tpc_abort', 42), None)
        self.assertEqual(c.call('lastTransaction'), z64)

    def test_vote_twice(self):
        c = self.raw(self.addr)
        c.store(42, p64(1), z64, record(1))
        self.assertEqual(c.vote(42), [])
        class_, args = c.error('vote', 42)
        self.assertEqual(class_, 'ZODB.POSException.StorageTransactionError')

    def test_abort_after_vote(self):
        c = self.raw(self.addr)
        c.store(42, p64(1), z64, record(1))
        self.assertEqual(c.vote(42), [])
        self.assertEqual(c.call('tpc_abort', 42), None)
        self.assertEqual(c.call('lastTransaction'), z64)
        c.error('loadBefore', p64(1), maxtid)
        tid = c.commit(p64(1))
        self.assertEqual(c.call('lastTransaction'), tid)

    def test_new_oids(self):
        c1, c2 = self.raw(self.addr), self.raw(self.addr)
        one, two = c1.call('new_oids'), c2.call('new_oids')
        self.assertEqual((len(one), len(two)), (100, 100))
        self.assertEqual(len(set(one) | set(two)), 200)
        self.assertEqual(len(c1.call('new_oids', 7)), 7)
        self.assertEqual(len(c1.call('new_oids', 1000)), 100)
        # An oid stored counts as used.
        c1.commit(p64(1 << 33))
        for oid in c2.call('new_oids'):
            self.assertGreater(u64(oid), 1 << 33)

    def test_tids_increase(self):
        c1, c2 = self.raw(self.addr), self.raw(self.addr)
        last = z64
        for i in range(1, 51):
            c = c1 if i % 3 else c2
            tid = c.commit(p64(i))
            self.assertEqual(len(tid), 8)
            self.assertGreater(tid, last)
            last = tid
        c = self.raw(self.addr)
        self.assertEqual(c.last, last)

    def test_get_info(self):
        c = self.raw(self.addr)
        info = c.call('get_info')
        self.assertEqual(
            set(info), {'length', 'size', 'name', 'supportsUndo',
                        'supports_record_iternext', 'interfaces'})
        self.assertTrue(info['supportsUndo'])
        self.assertTrue(info['supports_record_iternext'])
        self.assertEqual(info['length'], 0)
        interfaces = set(map(tuple, info['interfaces']))
        for name in ('IStorageRestoreable', 'IStorageIteration',
                     'IStorageUndoable', 'IStorageCurrentRecordIteration',
                     'IExternalGC', 'IStorage'):
            self.assertIn(('ZODB.interfaces', name), interfaces)

    def test_server_status(self):
        c = self.raw(self.addr)
        tid = c.commit(p64(1))
        status = c.call('server_status')
        self.assertEqual(status['last-transaction'], tid.hex())
        self.assertEqual(status['commits'], 1)
        self.assertEqual(status['connections'], 1)

    def test_label(self):
        c = self.raw(self.addr)
        c.async_('set_client_label', 'tester')
        self.assertEqual(c.call('ping'), None)

    def test_record_iternext(self):
        c = self.raw(self.addr)
        for i in 0, 1, 5, 300:
            c.commit(p64(i))
        found = []
        next = None
        while True:
            oid, tid, data, next = c.call('record_iternext', next)
            self.assertEqual(data, record(u64(oid)))
            found.append(u64(oid))
            if next is None:
                break
        self.assertEqual(found, [0, 1, 5, 300])

    def test_read_only_registration(self):
        c = self.raw(self.addr, read_only=True)
        class_, args = c.error('new_oids')
        self.assertEqual(class_, 'ZODB.POSException.ReadOnlyError')
        c.async_('tpc_begin', 1, b'', b'', {}, None, ' ')
        self.assertTrue(c.is_closed())

    def test_ruok_is_closed_after(self):
        c = self.raw(self.addr, greet=False)
        c.send(b'ruok')
        self.assertEqual(c.receive(), self.protocol())
        self.assertIn(b'last-transaction', c.receive())
        self.assertTrue(c.is_closed())


class LogTests(Base):

    def test_label_is_logged(self):
        # client_labels, without the form of a line of the log
        addr, stop = self.start(log='server.log')
        c = self.client(addr, client_label='this-is-me')
        c.close()
        deadline = time.monotonic() + TIMEOUT
        while True:
            with open('server.log') as f:
                if 'this-is-me' in f.read():
                    break
            self.assertLess(time.monotonic(), deadline)
            time.sleep(.05)


class LockTests(Base):

    def setUp(self):
        super().setUp()
        self.addr, self.stop = self.start()
        self.a = self.raw(self.addr)
        self.b = self.raw(self.addr)

    # (Two transactions on the same object: whether those on different ones
    # wait for each other is the server's choice.)

    def test_second_vote_waits_for_finish(self):
        a, b = self.a, self.b
        first = a.commit(p64(1))
        a.store(1, p64(1), first, record(1))
        b.store(1, p64(1), first, record(2))
        self.assertEqual(a.vote(1), [])
        n = b.begin_call('vote', 1)
        self.assertFalse(b.is_answered(n, .3))
        # Other calls of the waiting client go on.
        self.assertEqual(b.call('lastTransaction'), first)
        tid = a.call('tpc_finish', 1)
        flag, [conflict] = b.reply(n)
        self.assertEqual((flag, tuple(conflict['serials'])), (0, (tid, first)))
        # A resolved store goes on top of the winner.
        b.async_('storea', p64(1), tid, record(3), 1)
        self.assertEqual(b.vote(1), [])
        self.assertGreater(b.call('tpc_finish', 1), tid)
        self.assertEqual(b.invalidations()[-1], (tid, [p64(1)]))

    def test_second_vote_waits_for_abort(self):
        a, b = self.a, self.b
        a.store(1, p64(1), z64, record(1))
        b.store(1, p64(1), z64, record(2))
        self.assertEqual(a.vote(1), [])
        n = b.begin_call('vote', 1)
        self.assertFalse(b.is_answered(n, .3))
        a.call('tpc_abort', 1)
        self.assertIn(b.reply(n), ((0, []), (0, ())))
        b.call('tpc_finish', 1)

    def test_second_vote_waits_for_disconnect(self):
        a, b = self.a, self.b
        a.store(1, p64(1), z64, record(1))
        b.store(1, p64(1), z64, record(2))
        self.assertEqual(a.vote(1), [])
        n = b.begin_call('vote', 1)
        self.assertFalse(b.is_answered(n, .3))
        a.close()
        self.assertIn(b.reply(n), ((0, []), (0, ())))
        b.call('tpc_finish', 1)

    def test_waiting_client_aborts(self):
        a, b = self.a, self.b
        a.store(1, p64(1), z64, record(1))
        b.store(1, p64(1), z64, record(2))
        self.assertEqual(a.vote(1), [])
        b.begin_call('vote', 1)
        abort = b.begin_call('tpc_abort', 1)
        self.assertEqual(b.reply(abort), (0, None))
        a.call('tpc_finish', 1)
        self.assertEqual(b.call('ping'), None)
        b.commit(p64(2))
        self.assertEqual(b.call('loadBefore', p64(1), maxtid)[0], record(1))

    def test_uncommitted_data_is_not_seen(self):
        a, b = self.a, self.b
        a.store(1, p64(1), z64, record(1))
        self.assertEqual(a.vote(1), [])
        class_, args = b.error('loadBefore', p64(1), maxtid)
        self.assertEqual(class_, 'ZODB.POSException.POSKeyError')
        a.call('tpc_finish', 1)
        self.assertEqual(b.call('loadBefore', p64(1), maxtid)[0], record(1))

    def test_conflict_goes_to_the_client(self):
        # Second half of ClientSideConflictResolutionTests.test_server_side
        a = self.a
        data = [zodb_pickle(Length(i)) for i in range(3)]
        tid1 = a.commit(p64(1), z64, data[0])
        tid2 = a.commit(p64(1), tid1, data[1])
        a.store(3, p64(1), tid1, data[1])
        [conflict] = a.vote(3)
        self.assertEqual(conflict['oid'], p64(1))
        self.assertEqual(tuple(conflict['serials']), (tid2, tid1))
        self.assertEqual(conflict['data'], data[1])
        a.async_('storea', p64(1), tid2, data[2], 3)
        self.assertEqual(a.vote(3), [])
        tid3 = a.call('tpc_finish', 3)
        self.assertEqual(tuple(a.call('loadBefore', p64(1), maxtid)),
                         (data[2], tid3, None))

    def test_all_conflicts_in_one_answer(self):
        a = self.a
        tids = {}
        for i in 1, 2, 3:
            first = a.commit(p64(i))
            tids[p64(i)] = a.commit(p64(i), first), first
        a.async_('tpc_begin', 5, b'', b'', {}, None, ' ')
        for oid, (_, first) in tids.items():
            a.async_('storea', oid, first, record(0), 5)
        a.async_('storea', p64(4), z64, record(0), 5)
        conflicts = a.vote(5)
        self.assertEqual({c['oid']: tuple(c['serials']) for c in conflicts},
                         tids)
        a.call('tpc_abort', 5)
        a.commit(p64(4))

    def test_check_current_serial(self):
        a = self.a
        tid1 = a.commit(p64(1))
        tid2 = a.commit(p64(1), tid1)
        a.store(5, p64(2), z64, record(2))
        a.async_('checkCurrentSerialInTransaction', p64(1), tid1, 5)
        class_, args = a.error('vote', 5)
        self.assertEqual(class_, 'ZODB.POSException.ReadConflictError')
        self.assertEqual(args['oid'], p64(1))
        self.assertEqual(tuple(args['serials']), (tid2, tid1))
        self.assertIn('message', args)
        # The failed vote has ended the transaction.
        a.store(6, p64(2), z64, record(2))
        a.async_('checkCurrentSerialInTransaction', p64(1), tid2, 6)
        self.assertEqual(a.vote(6), [])
        a.call('tpc_finish', 6)


class InvalidationTests(Base):

    def setUp(self):
        super().setUp()
        self.addr, self.stop = self.start()

    def test_no_stale_reply_after_invalidation(self):
        # The order clients' caches depend on: once a connection was told
        # that a transaction changed an object, no later reply on it may give
        # the object's former revision as the current one.
        writer, reader = self.raw(self.addr), self.raw(self.addr)
        oid = p64(1)
        serial = writer.commit(oid)
        done = threading.Event()

        def write():
            nonlocal serial
            try:
                for _ in range(100):
                    serial = writer.commit(oid, serial)
            finally:
                done.set()

        thread = threading.Thread(target=write)
        thread.start()
        n = 0
        while not done.is_set() or n < 20:
            n += 1
            ids = [reader.begin_call('loadBefore', oid, maxtid)
                   for i in range(20)]
            for id in ids:
                flag, (data, tid, end) = reader.reply(id)
                self.assertEqual((flag, end), (0, None))
                for told, _ in reader.invalidations()[-1:]:
                    self.assertGreaterEqual(tid, told)
        thread.join()
        reader.call('ping')
        invalidations = reader.invalidations()
        # Each transaction once, in order.
        self.assertEqual(len(invalidations), 101)
        tids = [t for t, oids in invalidations]
        self.assertEqual(tids, sorted(set(tids)))
        self.assertEqual(tids[-1], serial)
        self.assertTrue(all(list(o) == [oid] for t, o in invalidations))
        # The committing client gets no invalidations of its own.
        self.assertEqual(writer.invalidations(), [])

    def test_get_invalidations(self):
        c = self.raw(self.addr)
        tids = [c.commit(p64(i)) for i in range(10)]
        tid, oids = c.call('getInvalidations', tids[5])
        self.assertEqual(tid, tids[-1])
        self.assertEqual(sorted(oids), [p64(i) for i in (6, 7, 8, 9)])
        tid, oids = c.call('getInvalidations', tids[-1])
        self.assertEqual((tid, list(oids)), (tids[-1], []))

    def test_sync_makes_a_round_trip(self):
        # test_sync.py, without a look into the server
        writer = self.raw(self.addr)
        c = self.client(self.addr, server_sync=True)
        serial = z64
        for _ in range(20):
            serial = writer.commit(p64(1), serial)
            c.sync()
            self.assertEqual(c.lastTransaction(), serial)

    def test_credentials_are_ignored(self):
        c = self.client(self.addr, credentials=dict(user='me', password='1'))
        self.assertTrue(c.is_connected())


class RestartTests(Base):

    def test_invalidations_survive_restart(self):
        # getInvalidationsAfterServerRestart, over the wire
        addr, stop = self.start(keep=True)
        c = self.raw(addr)
        serial = c.commit(p64(0))
        tids = []
        for i in range(1, 101):
            c.async_('tpc_begin', i, b'', b'', {}, None, ' ')
            c.async_('storea', p64(0), serial, record(0), i)
            c.async_('storea', p64(i), z64, record(i), i)
            c.vote(i)
            serial = c.call('tpc_finish', i)
            tids.append(serial)
        stop()
        addr, stop = self.start(port=addr[1], keep=True)
        c = self.raw(addr)
        self.assertEqual(c.last, tids[-1])
        tid, oids = c.call('getInvalidations', tids[-10])
        self.assertEqual(tid, tids[-1])
        self.assertEqual(sorted(oids),
                         [p64(i) for i in [0] + list(range(92, 101))])
        self.assertGreater(c.commit(p64(0), serial), serial)

    def test_data_survives_restart(self):
        addr, stop = self.start(keep=True)
        c = self.raw(addr)
        tids = [c.commit(p64(i)) for i in range(5)]
        oid = c.call('new_oids')[0]
        self.assertGreater(u64(oid), 4)
        stop()
        addr, stop = self.start(keep=True)
        c = self.raw(addr)
        for i, tid in enumerate(tids):
            self.assertEqual(tuple(c.call('loadBefore', p64(i), maxtid)),
                             (record(i), tid, None))
        self.assertEqual([t['tid'] for t in c.call('history', p64(3), 9)],
                         [tids[3]])

    def test_voted_transaction_does_not_survive(self):
        addr, stop = self.start(keep=True)
        c = self.raw(addr)
        tid = c.commit(p64(1))
        c.store(9, p64(1), tid, record(2))
        self.assertEqual(c.vote(9), [])
        stop()
        addr, stop = self.start(keep=True)
        c = self.raw(addr)
        # (FileStorage says here the tid of the transaction it threw away.)
        self.assertGreaterEqual(c.last, tid)
        self.assertEqual(tuple(c.call('loadBefore', p64(1), maxtid)),
                         (record(1), tid, None))
        self.assertGreater(c.commit(p64(1), tid), tid)


class TimeoutTests(Base):

    def test_timeout_after_vote(self):
        # TimeoutTests.checkTimeout, without a look at the log
        addr, stop = self.start(transaction_timeout=1)
        a, b = self.raw(addr), self.raw(addr)
        a.async_('tpc_begin', 1, b'user', b'description', {}, None, ' ')
        a.async_('storea', p64(1), z64, record(1), 1)
        a.async_('storea', p64(2), z64, record(1), 1)
        b.store(1, p64(1), z64, record(2))
        self.assertEqual(a.vote(1), [])
        n = b.begin_call('vote', 1)
        self.assertTrue(a.is_closed(10))
        self.assertIn(b.reply(n), ((0, []), (0, ())))
        b.call('tpc_finish', 1)
        self.assertEqual(b.call('loadBefore', p64(1), maxtid)[0], record(2))
        class_, args = b.error('loadBefore', p64(2), maxtid)
        self.assertEqual(class_, 'ZODB.POSException.POSKeyError')

    def test_timeout_disconnects_client(self):
        addr, stop = self.start(transaction_timeout=1)
        storage = self.client(addr, wait_timeout=4)
        txn = TransactionMetaData()
        storage.tpc_begin(txn)
        storage.tpc_vote(txn)
        time.sleep(2)
        with self.assertRaises(ClientDisconnected):
            storage.tpc_finish(txn)
        storage.tpc_abort(txn)

    def test_no_timeout_before_vote(self):
        addr, stop = self.start(transaction_timeout=1)
        a = self.raw(addr)
        a.store(1, p64(1), z64, record(1))
        time.sleep(2)
        self.assertEqual(a.vote(1), [])
        a.call('tpc_finish', 1)


class StoragesTests(Base):

    def test_storages_are_apart(self):
        # multiple_storages_invalidation_queue_is_not_insane, over the wire
        addr, stop = self.start(
            '<filestorage one>\npath one.fs\n</filestorage>\n'
            '<filestorage two>\npath two.fs\n</filestorage>\n')
        one = self.raw(addr, storage='one')
        watch = self.raw(addr, storage='one')
        two = self.raw(addr, storage='two')
        tids = [one.commit(p64(i)) for i in range(10)]
        for i in range(20):
            two.commit(p64(100 + i))
        tid, oids = one.call('getInvalidations', tids[4])
        self.assertEqual(tid, tids[-1])
        self.assertEqual(sorted(oids), [p64(i) for i in range(5, 10)])
        one.error('loadBefore', p64(100), maxtid)
        watch.call('ping')
        self.assertEqual([t for t, o in watch.invalidations()], tids)

    def test_locks_are_apart(self):
        addr, stop = self.start(
            '<filestorage one>\npath one.fs\n</filestorage>\n'
            '<filestorage two>\npath two.fs\n</filestorage>\n')
        one = self.raw(addr, storage='one')
        two = self.raw(addr, storage='two')
        one.store(1, p64(1), z64, record(1))
        self.assertEqual(one.vote(1), [])
        two.commit(p64(1))
        one.call('tpc_finish', 1)


class ReadOnlyTests(Base):

    def test_read_only_server(self):
        addr, stop = self.start(keep=True)
        c = self.raw(addr)
        tid = c.commit(p64(1))
        stop()
        addr, stop = self.start(read_only=True)
        c = self.raw(addr, register=False)
        class_, args = c.error('register', '1', False)
        self.assertEqual(class_, 'ZODB.POSException.ReadOnlyError')
        self.assertEqual(c.call('register', '1', True), tid)
        self.assertEqual(c.call('loadBefore', p64(1), maxtid)[0], record(1))
        storage = self.client(addr, read_only=True)
        with self.assertRaises(ReadOnlyError):
            storage.new_oid()


class BlobTests(Base):

    def setUp(self):
        super().setUp()
        self.addr, self.stop = self.start(BLOB)

    def receive_blob(self, c, oid, serial):
        self.assertEqual(c.call('sendBlob', oid, serial), None)
        self.assertEqual(
            [name for name, args in c.pushed if 'Chunk' not in name],
            ['receiveBlobStart', 'receiveBlobStop'])
        (_, start), *chunks, (_, stop) = c.pushed
        self.assertEqual(tuple(start), (oid, serial))
        self.assertEqual(tuple(stop), (oid, serial))
        data = b''
        for _, (o, s, chunk) in chunks:
            self.assertEqual((o, s), (oid, serial))
            data += chunk
        del c.pushed[:]
        return data

    def test_blob_round_trip(self):
        c = self.raw(self.addr)
        for i, size in enumerate((0, 1, 59000, 59001, 1 << 21)):
            blob = os.urandom(size)
            oid = p64(i + 1)
            pickle = zodb_pickle(ZODB.blob.Blob())
            c.async_('tpc_begin', i, b'', b'', {}, None, ' ')
            c.async_('storea', oid, z64, pickle, i)
            c.async_('storeBlobStart')
            for pos in range(0, size, 59000):
                c.async_('storeBlobChunk', blob[pos:pos + 59000])
            c.async_('storeBlobEnd', oid, z64, pickle, i)
            self.assertEqual(c.vote(i), [])
            tid = c.call('tpc_finish', i)
            del c.pushed[:]
            self.assertEqual(self.receive_blob(c, oid, tid), blob)

    def test_missing_blob(self):
        c = self.raw(self.addr)
        class_, args = c.error('sendBlob', p64(1), p64(1))
        self.assertEqual(class_, 'ZODB.POSException.POSKeyError')

    def test_aborted_blob(self):
        c = self.raw(self.addr)
        pickle = zodb_pickle(ZODB.blob.Blob())
        c.async_('tpc_begin', 1, b'', b'', {}, None, ' ')
        c.async_('storeBlobStart')
        c.async_('storeBlobChunk', b'x' * 1000)
        c.async_('storeBlobEnd', p64(1), z64, pickle, 1)
        self.assertEqual(c.call('tpc_abort', 1), None)
        c.error('loadBefore', p64(1), maxtid)

    def test_interface(self):
        info = self.raw(self.addr).call('get_info')
        self.assertIn(('ZODB.interfaces', 'IBlobStorage'),
                      set(map(tuple, info['interfaces'])))

    def test_store_and_load_blob(self):
        # checkStoreAndLoadBlob, without a look at the server's files
        storage = self.client(self.addr, blob_dir='cache')
        db = ZODB.DB(storage)
        data = b''.join(b'%d\n' % i for i in range(1000000))
        with db.transaction() as conn:
            conn.root.blob = ZODB.blob.Blob(data)
        conn = db.open()
        conn.root.blob._p_activate()
        oid, serial = conn.root.blob._p_oid, conn.root.blob._p_serial
        filename = storage.fshelper.getBlobFilename(oid, serial)
        ZODB.blob.remove_committed(filename)
        found = []
        threads = [threading.Thread(
            target=lambda: found.append(storage.loadBlob(oid, serial)))
            for i in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(found, [filename] * 10)
        with open(filename, 'rb') as f:
            self.assertEqual(f.read(), data)
        conn.close()
        db.close()

    def test_provided_interfaces(self):
        # checkInterfaceFromRemoteStorage, for what clients look for
        storage = self.client(self.addr, blob_dir='cache')
        for name in ('IStorageRestoreable', 'IStorageIteration',
                     'IStorageUndoable', 'IStorageCurrentRecordIteration',
                     'IBlobStorage', 'IExternalGC'):
            interface = getattr(ZODB.interfaces, name)
            self.assertTrue(interface.providedBy(storage), name)


class TLSTests(Base):

    def test_plain_client_gets_nothing_from_tls_server(self):
        addr, stop = start_zeo_server(
            '<mappingstorage>\n</mappingstorage>\n', testssl.server_config)
        self.addCleanup(stop)
        with socket.create_connection(addr, TIMEOUT) as s:
            self.assertEqual(select.select([s], [], [], .5)[0], [])
            s.sendall(b'\0\0\0\4ruok')
            s.settimeout(TIMEOUT)
            try:
                data = s.recv(100)
            except OSError:
                data = b''
            self.assertNotIn(b'Z5', data)
        client = self.client(addr, ssl=testssl.client_ssl())
        self.assertTrue(client.is_connected())

    def test_client_certificate_is_required(self):
        import ssl
        addr, stop = start_zeo_server(
            '<mappingstorage>\n</mappingstorage>\n', testssl.server_config)
        self.addCleanup(stop)
        context = ssl.create_default_context(
            ssl.Purpose.SERVER_AUTH, cafile=testssl.server_cert)
        context.check_hostname = False
        with self.assertRaises(ClientDisconnected):
            ZEO.client(addr, ssl=context, wait_timeout=2)


def test_suite():
    suite = unittest.TestSuite()
    for value in globals().values():
        if (isinstance(value, type) and issubclass(value, Base)
                and value is not Base):
            suite.addTest(
                unittest.defaultTestLoader.loadTestsFromTestCase(value))
    return suite
