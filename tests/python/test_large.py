"""Transactions and objects that do not fit into one entry of the log."""
import os

from ZODB.utils import maxtid, p64, u64, z64

from cases import OneServer, ThreeNodes, begin, both_encodings, wait_for, zrs_only
from objects import counter_record
from test_blobs import MIB, staged


class Large:

    def nothing_staged(self):
        wait_for('the pieces to be gone', lambda: all(staged(node) == 0 for node in self.cluster.nodes))

    def store_all(self, storage, objects):
        t = begin(storage)
        for oid, data in objects:
            storage.store(oid, z64, data, '', t)
        storage.tpc_vote(t)
        return storage.tpc_finish(t)


@both_encodings
@zrs_only
class OneNode(Large, OneServer):
    limit = 120

    def test_a_large_object(self):
        c = self.raw()
        oid, data = c.new_oid(), os.urandom(20 * MIB + 3)
        size = u64(p64(c.call('get_info')['size']))
        tid = c.commit(oid, data=data)
        self.assertEqual(tuple(c.call('loadBefore', oid, maxtid)), (data, tid, None))
        self.assertEqual(c.call('loadSerial', oid, tid), data)
        self.assertEqual(c.call('history', oid, 1)[0]['size'], len(data))
        self.assertGreaterEqual(c.call('get_info')['size'] - size, len(data))
        self.nothing_staged()

    def test_many_objects_come_back_as_they_were_and_in_order(self):
        storage = self.storage()
        last = storage.lastTransaction()
        objects = [(storage.new_oid(), p64(n) * 150) for n in range(12000)]
        tid = self.store_all(storage, objects)
        self.assertGreater(tid, last)
        found = next(iter(storage.iterator(tid)))
        self.assertEqual([(record.oid, record.data) for record in found], objects)
        self.nothing_staged()

    def test_the_conflict_of_a_large_object_gives_back_what_was_sent(self):
        c, other = self.raw(), self.raw()
        oid = c.new_oid()
        first = c.commit(oid, data=counter_record(0))
        large = counter_record(1) + os.urandom(5 * MIB)
        c.store(1, oid, first, large)
        second = other.commit(oid, first, counter_record(5))
        conflict, = c.vote(1)
        self.assertEqual((conflict['oid'], conflict['data']), (oid, large))
        self.assertEqual(tuple(conflict['serials']), (second, first))
        resolved = os.urandom(6 * MIB)
        c.async_('storea', oid, second, resolved, 1)
        self.assertEqual(c.vote(1), [])
        tid = c.call('tpc_finish', 1)
        self.assertEqual(c.call('loadBefore', oid, maxtid)[0], resolved)
        self.assertEqual(c.call('loadBefore', oid, tid)[1], second)
        self.nothing_staged()

    def test_conflicts_that_are_too_large_to_tell_are_a_plain_one(self):
        c, other = self.raw(), self.raw()
        oids = [c.new_oid(), c.new_oid()]
        serials = [c.commit(oid, data=counter_record(0)) for oid in oids]
        c.begin(1)
        for oid, serial in zip(oids, serials, strict=True):
            c.async_('storea', oid, serial, bytes(65 * MIB), 1)
            other.commit(oid, serial, counter_record(5))
        self.assertIn('ConflictError', str(c.error('vote', 1)))
        self.nothing_staged()
        serials[0] = c.commit(oids[0], other.call('loadBefore', oids[0], maxtid)[1], counter_record(6))
        self.assertEqual(c.call('loadBefore', oids[0], maxtid)[1], serials[0])

    def test_a_later_store_replaces_a_large_one(self):
        c = self.raw()
        oid = c.new_oid()
        c.store(1, oid, z64, os.urandom(5 * MIB))
        c.async_('storea', oid, z64, b'small', 1)
        self.assertEqual(c.vote(1), [])
        tid = c.call('tpc_finish', 1)
        self.assertEqual(c.call('loadSerial', oid, tid), b'small')
        self.nothing_staged()

    def test_an_abort_and_a_lost_client_and_a_failed_vote_leave_nothing(self):
        c = self.raw()
        for ending in ('abort', 'fail', 'close'):
            c.begin(1)
            for n in range(6):
                c.async_('storea', p64((1 << 30) + n), z64, os.urandom(MIB), 1)
            wait_for('the pieces', lambda: staged(self.server) > 0)
            if ending == 'abort':
                c.call('tpc_abort', 1)
            elif ending == 'fail':
                c.async_('checkCurrentSerialInTransaction', p64(1 << 55), p64(1), 1)
                c.error('vote', 1)
            else:
                c.close()
            self.nothing_staged()

    def test_a_voted_one_may_be_aborted(self):
        c = self.raw()
        oid = c.new_oid()
        c.store(1, oid, z64, os.urandom(9 * MIB))
        self.assertEqual(c.vote(1), [])
        self.assertGreater(staged(self.server), 0)
        c.call('tpc_abort', 1)
        self.nothing_staged()
        self.assertEqual(c.error('loadBefore', oid, maxtid)[0], 'ZODB.POSException.POSKeyError')

    def test_a_copy_with_a_hint_is_stored_once(self):
        c = self.raw()
        oid, data = c.new_oid(), os.urandom(4 * MIB)
        first = c.commit(oid, data=data)
        size = c.call('get_info')['size']
        tid = p64(u64(first) + 1000)
        c.begin(1, tid=tid)
        c.async_('restorea', oid, tid, data, first, 1)
        self.assertEqual(c.vote(1), [])
        self.assertEqual(c.call('tpc_finish', 1), tid)
        self.assertEqual(c.call('loadSerial', oid, tid), data)
        self.assertEqual(c.call('get_info')['size'], size)
        self.nothing_staged()

    def test_others_go_on_while_one_is_sent(self):
        c, other = self.raw(), self.raw()
        oid = other.new_oid()
        c.begin(1)
        tid = z64
        for n in range(30):
            c.async_('storea', p64((1 << 31) + n), z64, os.urandom(MIB), 1)
            tid = other.commit(oid, tid)
        self.assertEqual(c.vote(1), [])
        self.assertGreater(c.call('tpc_finish', 1), tid)


class Cluster(Large, ThreeNodes):
    is_template = False
    limit = 240
    # This is about large things; three nodes of an unoptimised build on a machine that does other things too need
    # patience.
    options = ('--election-timeout', '1000')

    def test_a_hundred_thousand_objects_are_everywhere(self):
        storage = self.storage(wait_timeout=60)
        objects = [(p64(10 ** 6 + n), p64(n) * 30) for n in range(100_000)]
        tid = self.store_all(storage, objects)
        self.cluster.wait_same()
        for node in self.cluster.nodes:
            reader = self.storage(node.address, read_only=True)
            self.assertEqual(reader.lastTransaction(), tid)
            self.assertEqual(len(reader), 100_000)
            for oid, data in objects[::9973]:
                self.assertEqual(reader.loadBefore(oid, maxtid), (data, tid, None))
        self.nothing_staged()

    def test_the_primary_dies_with_a_voted_one(self):
        c = self.raw(self.cluster.wait_primary().address)
        c.store(1, c.new_oid(), z64, os.urandom(8 * MIB))
        self.assertEqual(c.vote(1), [])
        primary = self.cluster.wait_primary()
        primary.kill()
        self.assertTrue(c.is_closed())
        primary = self.cluster.wait_primary()
        wait_for('the new primary to discard', lambda: staged(primary) == 0)
        self.heal()
        self.cluster.wait_same()
        self.nothing_staged()
