"""The wire itself, over a plain socket: greeting, framing, errors, locks, and the order that clients' caches depend
on."""
import json
import threading

from BTrees.Length import Length
from ZODB.serialize import ObjectWriter
from ZODB.utils import maxtid, p64, u64, z64

from cases import STOCK, OneServer, both_encodings, zrs_only
from objects import record
from raw import EMPTY, frame


@both_encodings
class Wire(OneServer):
    """Greeting, framing, calls and their errors."""

    def protocol(self):
        return b'M5' if self.msgpack else b'Z5'

    def test_the_greeting_comes_first(self):
        c = self.raw(register=False)
        self.assertEqual(c.greeting, self.protocol())

    def test_a_client_may_choose_the_other_encoding(self):
        c = self.raw(version=b'Z5' if self.msgpack else b'M5')
        oid = c.new_oid()
        tid = c.commit(oid)
        self.assertEqual(c.call('lastTransaction'), tid)
        # The answers are the same in both encodings.
        other = self.raw()
        self.assertEqual(tuple(other.call('loadBefore', oid, maxtid)), tuple(c.call('loadBefore', oid, maxtid)))

    def test_another_version_is_refused(self):
        for version in b'Z4', b'Z309', b'what':
            c = self.raw(greet=False)
            c.receive()
            c.send(version)
            self.assertTrue(c.is_closed(), version)

    def test_fragments_and_batches(self):
        c = self.raw()
        data = frame(c.encode(1001, 0, 'ping', ())) + frame(c.encode(1002, 0, 'lastTransaction', ()))
        for i in range(len(data)):
            c.send_bytes(data[i:i + 1])
        self.assertEqual(c.reply(1001), (0, None))
        self.assertEqual(c.reply(1002), (0, c.last))
        c.send(*[c.encode(i, 0, 'ping', ()) for i in range(1, 501)])
        for i in range(1, 501):  # in order
            self.assertEqual(c.reply(i), (0, None))

    def test_any_message_id_comes_back(self):
        # ClientStorage uses (oid, tid) as the id of its loads.
        c = self.raw()
        oid = c.new_oid()
        tid = c.commit(oid, data=record('it'))
        id = oid, maxtid
        c.send(c.encode(id, 0, 'loadBefore', (oid, maxtid)))
        flag, answer = c.reply(id)
        self.assertEqual((flag, tuple(answer)), (0, (record('it'), tid, None)))

    def test_keep_alives_are_not_answered(self):
        c = self.raw(register=False)
        c.send(c.encode(-1, 0, '.reply', None))
        c.call('register', '1', False)
        c.send(c.encode(-1, 0, '.reply', None))
        self.assertIsNone(c.call('ping'))
        self.assertEqual(c.pushed, [])

    def test_an_unknown_call_closes(self):
        c = self.raw()
        c.begin_call('open_the_pod_bay_doors')
        self.assertTrue(c.is_closed())

    def test_nothing_goes_before_register(self):
        c = self.raw(register=False)
        c.begin_call('lastTransaction')
        self.assertTrue(c.is_closed())

    def test_register_goes_once(self):
        c = self.raw()
        c.begin_call('register', '1', False)
        self.assertTrue(c.is_closed())

    def test_a_wrong_storage_name_is_an_error_and_may_be_corrected(self):
        c = self.raw(register=False)
        self.assertEqual(c.error('register', 'no such', False)[0], 'builtins.ValueError')
        c.call('register', '1', False)
        self.assertIsNone(c.call('ping'))

    def test_an_error_is_the_answer_to_a_call_and_closes_after_an_asynchronous_one(self):
        c = self.raw()
        unknown = p64(1 << 60)
        kind, args = c.error('loadBefore', unknown, maxtid)
        self.assertEqual((kind, tuple(args)), ('ZODB.POSException.POSKeyError', (unknown,)))
        self.assertIsNone(c.call('ping'))
        c.async_('storea', unknown, z64, record(1), 42)  # without a transaction
        self.assertTrue(c.is_closed())

    def test_one_transaction_at_a_time(self):
        c = self.raw()
        c.begin(1)
        c.begin(1)  # ignored
        self.assertIsNone(c.call('ping'))
        c.begin(2)
        self.assertTrue(c.is_closed())

    def test_calls_out_of_place(self):
        c = self.raw()
        wrong = 'ZODB.POSException.StorageTransactionError'
        before = c.last
        self.assertEqual(c.error('vote', 42)[0], wrong)
        self.assertIsNone(c.call('tpc_finish', 42))
        self.assertIsNone(c.call('tpc_abort', 42))
        c.store(42, c.new_oid(), z64)
        self.assertEqual(c.error('vote', 43)[0], wrong)
        c.error('tpc_finish', 42)  # without a vote
        self.assertEqual(c.call('lastTransaction'), before)
        self.assertIsNone(c.call('tpc_abort', 42))
        c.store(44, c.new_oid(), z64)
        self.assertEqual(c.vote(44), [])
        self.assertEqual(c.error('vote', 44)[0], wrong)

    def test_abort_after_the_vote(self):
        c = self.raw()
        oid = c.new_oid()
        c.store(42, oid, z64)
        self.assertEqual(c.vote(42), [])
        self.assertIsNone(c.call('tpc_abort', 42))
        self.assertEqual(c.call('lastTransaction'), c.last)
        self.assertEqual(c.error('loadBefore', oid, maxtid)[0], 'ZODB.POSException.POSKeyError')
        self.assertEqual(c.commit(oid), c.call('lastTransaction'))

    def test_new_object_ids(self):
        a, b = self.raw(), self.raw()
        one, two = a.call('new_oids'), b.call('new_oids')
        self.assertEqual((len(one), len(two), len(set(one) | set(two))), (100, 100, 200))
        self.assertEqual(list(one), sorted(one))
        self.assertEqual(len(a.call('new_oids', 7)), 7)
        self.assertEqual(len(a.call('new_oids', 1000)), 100)
        far = u64(max(two)) + (1 << 33)
        a.commit(p64(far))  # counts as used from now on
        self.assertGreater(min(map(u64, b.call('new_oids'))), far)

    def test_transaction_ids_grow(self):
        a, b = self.raw(), self.raw()
        tids = [(a if i % 3 else b).commit(a.new_oid()) for i in range(50)]
        self.assertEqual(tids, sorted(set(tids)))
        self.assertEqual(self.raw().last, tids[-1])

    def test_get_info(self):
        info = self.raw().call('get_info')
        self.assertEqual(set(info), {'length', 'size', 'name', 'supportsUndo', 'supports_record_iternext', 'interfaces'})
        self.assertTrue(info['supports_record_iternext'])
        interfaces = set(map(tuple, info['interfaces']))
        for name in 'IStorage', 'IStorageRestoreable', 'IStorageIteration', 'IStorageCurrentRecordIteration':
            self.assertIn(('ZODB.interfaces', name), interfaces)

    def test_server_status(self):
        c = self.raw()
        before = c.call('server_status')
        tid = c.commit(c.new_oid())
        status = c.call('server_status')
        self.assertEqual(status['last-transaction'], tid.hex())
        for name, by in (('commits', 1), ('stores', 1), ('conflicts', 0)):
            self.assertEqual(status[name] - before[name], by, name)
        self.assertGreaterEqual(status['connections'], 1)

    def test_the_monitor_is_answered_and_closed(self):
        tid = self.raw().commit(self.raw().new_oid())
        c = self.raw(greet=False)
        c.send(b'ruok')
        self.assertEqual(c.receive(), self.protocol())
        self.assertEqual(json.loads(c.receive())['1']['last-transaction'], tid.hex())
        self.assertTrue(c.is_closed())

    def test_a_read_only_registration_does_not_write(self):
        c = self.raw(read_only=True)
        self.assertEqual(c.error('new_oids')[0], 'ZODB.POSException.ReadOnlyError')
        c.begin(1)
        self.assertTrue(c.is_closed())

    def test_a_label(self):
        c = self.raw()
        c.async_('set_client_label', 'tester')
        self.assertIsNone(c.call('ping'))

    def test_the_extension_of_a_transaction_may_hold_anything(self):
        c = self.raw()
        oid = c.new_oid()
        c.begin(1, extension={'text': 'größer', 'bytes': b'\xff\0', 'nested': [1, (2.5, None), {'a': True}], 'big': 1 << 70}
                if not self.msgpack else {'text': 'größer', 'bytes': b'\xff\0', 'nested': [1, [2.5, None], {'a': True}]})
        c.async_('storea', oid, z64, record(1), 1)
        self.assertEqual(c.vote(1), [])
        c.call('tpc_finish', 1)
        [entry] = c.call('history', oid, 1)
        self.assertEqual((entry['text'], entry['bytes'], entry['nested'][0]), ('größer', b'\xff\0', 1))


@both_encodings
class Locks(OneServer):
    """Who waits for whom between vote and finish."""

    def setUp(self):
        super().setUp()
        self.a, self.b = self.raw(), self.raw()

    @zrs_only
    def test_different_objects_vote_and_finish_side_by_side(self):
        # (The stock server has one lock for all.)
        a, b = self.a, self.b
        a.store(1, a.new_oid(), z64)
        b.store(1, b.new_oid(), z64)
        self.assertEqual(a.vote(1), [])
        self.assertEqual(b.vote(1), [])
        first = b.call('tpc_finish', 1)
        self.assertGreater(a.call('tpc_finish', 1), first)

    @zrs_only
    def test_checks_of_one_object_share(self):
        a, b = self.a, self.b
        checked = a.new_oid()
        tid = a.commit(checked)
        for c in a, b:
            c.store(1, c.new_oid(), z64)
            c.async_('checkCurrentSerialInTransaction', checked, tid, 1)
            self.assertEqual(c.vote(1), [])
        # A store of it waits for both.
        w = self.raw()
        w.store(1, checked, tid)
        waiting = w.begin_call('vote', 1)
        self.assertFalse(w.is_answered(waiting, .3))
        a.call('tpc_finish', 1)
        self.assertFalse(w.is_answered(waiting, .3))
        b.call('tpc_finish', 1)
        self.assertIn(w.reply(waiting), EMPTY)
        w.call('tpc_finish', 1)

    def test_the_second_vote_waits_for_the_first_to_finish(self):
        a, b = self.a, self.b
        oid = a.new_oid()
        a.store(1, oid, z64, record(1))
        b.store(1, oid, z64, record(2))
        self.assertEqual(a.vote(1), [])
        waiting = b.begin_call('vote', 1)
        self.assertFalse(b.is_answered(waiting, .3))
        # Its other calls go on.
        self.send_ping(b)
        tid = a.call('tpc_finish', 1)
        flag, [conflict] = b.reply(waiting)
        self.assertEqual((flag, conflict['oid'], tuple(conflict['serials'])), (0, oid, (tid, z64)))
        if not STOCK:  # it was told of the commit before it was told of the conflict
            self.assertEqual(b.invalidations(), [(tid, [oid])])

    def send_ping(self, c):
        c.send(c.encode(7777, 0, 'ping', ()))
        self.assertEqual(c.reply(7777), (0, None))

    def test_the_second_vote_waits_for_an_abort(self):
        a, b = self.a, self.b
        oid = a.new_oid()
        for c in a, b:
            c.store(1, oid, z64)
        self.assertEqual(a.vote(1), [])
        waiting = b.begin_call('vote', 1)
        self.assertFalse(b.is_answered(waiting, .3))
        a.call('tpc_abort', 1)
        self.assertIn(b.reply(waiting), EMPTY)
        b.call('tpc_finish', 1)

    def test_the_second_vote_waits_for_a_disconnect(self):
        a, b = self.a, self.b
        oid = a.new_oid()
        for c in a, b:
            c.store(1, oid, z64)
        self.assertEqual(a.vote(1), [])
        waiting = b.begin_call('vote', 1)
        self.assertFalse(b.is_answered(waiting, .3))
        a.close()
        self.assertIn(b.reply(waiting), EMPTY)
        b.call('tpc_finish', 1)

    def test_who_waits_may_give_up(self):
        a, b = self.a, self.b
        oid = a.new_oid()
        for c in a, b:
            c.store(1, oid, z64)
        self.assertEqual(a.vote(1), [])
        b.begin_call('vote', 1)
        b.send(b.encode(8888, 0, 'tpc_abort', (1,)))
        seen = {}
        while 8888 not in seen:
            msgid, flag, name, args = b.decode(b.receive())
            seen[msgid] = flag, args
        self.assertEqual(seen[8888], (0, None))
        a.call('tpc_finish', 1)
        b2 = self.raw()
        b2.commit(b2.new_oid())

    def test_what_is_only_voted_is_not_seen(self):
        a, b = self.a, self.b
        oid = a.new_oid()
        a.store(1, oid, z64, record(1))
        self.assertEqual(a.vote(1), [])
        self.assertEqual(b.error('loadBefore', oid, maxtid)[0], 'ZODB.POSException.POSKeyError')
        a.call('tpc_finish', 1)
        self.assertEqual(b.call('loadBefore', oid, maxtid)[0], record(1))

    def test_a_call_sees_what_was_answered_before_it(self):
        # (zrs keeps news back for a moment from a client that was just written to, as b is here; not from its calls.)
        a, b = self.a, self.b
        oid = a.new_oid()
        tid = a.commit(oid)
        for n in range(50):
            a.store(n, oid, tid, record(n))
            self.assertEqual(a.vote(n), [])
            finish = a.begin_call('tpc_finish', n)
            b.call('loadBefore', oid, maxtid)
            flag, tid = a.reply(finish)
            self.assertFalse(flag)
            self.assertEqual(tuple(b.call('loadBefore', oid, maxtid)), (record(n), tid, None))
            self.assertEqual(b.invalidations()[-1], (tid, [oid]))

    def test_a_conflict_goes_to_the_client_to_resolve(self):
        a = self.a
        oid = a.new_oid()
        data = [ObjectWriter().serialize(Length(i)) for i in range(3)]
        tid1 = a.commit(oid, z64, data[0])
        tid2 = a.commit(oid, tid1, data[1])
        a.store(3, oid, tid1, data[1])
        [conflict] = a.vote(3)
        self.assertEqual((conflict['oid'], tuple(conflict['serials']), conflict['data']), (oid, (tid2, tid1), data[1]))
        a.async_('storea', oid, tid2, data[2], 3)
        self.assertEqual(a.vote(3), [])
        tid3 = a.call('tpc_finish', 3)
        self.assertEqual(tuple(a.call('loadBefore', oid, maxtid)), (data[2], tid3, None))

    @zrs_only
    def test_who_resolves_keeps_its_lock(self):
        # (The stock server lets go of it with the answer, and a busy rival wins again.)
        a, b = self.a, self.b
        oid = a.new_oid()
        tid1 = a.commit(oid)
        tid2 = a.commit(oid, tid1)
        a.store(3, oid, tid1)
        [conflict] = a.vote(3)
        b.store(3, oid, tid2)
        waiting = b.begin_call('vote', 3)
        self.assertFalse(b.is_answered(waiting, .3))
        a.async_('storea', oid, tid2, record('resolved'), 3)
        self.assertEqual(a.vote(3), [])
        tid3 = a.call('tpc_finish', 3)
        flag, [conflict] = b.reply(waiting)
        self.assertEqual(tuple(conflict['serials']), (tid3, tid2))

    def test_all_conflicts_are_in_one_answer(self):
        a = self.a
        expected = {}
        a_new = a.new_oid()
        for _ in range(3):
            oid = a.new_oid()
            first = a.commit(oid)
            expected[oid] = a.commit(oid, first), first
        a.begin(5)
        for oid, (_, first) in expected.items():
            a.async_('storea', oid, first, record(0), 5)
        a.async_('storea', a_new, z64, record(0), 5)
        self.assertEqual({c['oid']: tuple(c['serials']) for c in a.vote(5)}, expected)
        a.call('tpc_abort', 5)
        a.commit(a_new)

    def test_a_failed_check_ends_the_transaction(self):
        a = self.a
        oid, other = a.new_oid(), a.new_oid()
        tid1 = a.commit(oid)
        tid2 = a.commit(oid, tid1)
        a.store(5, other, z64)
        a.async_('checkCurrentSerialInTransaction', oid, tid1, 5)
        kind, args = a.error('vote', 5)
        self.assertEqual((kind, args['oid'], tuple(args['serials'])),
                         ('ZODB.POSException.ReadConflictError', oid, (tid2, tid1)))
        self.assertIn('message', args)
        a.store(6, other, z64)
        a.async_('checkCurrentSerialInTransaction', oid, tid2, 6)
        self.assertEqual(a.vote(6), [])
        a.call('tpc_finish', 6)


@both_encodings
class Order(OneServer):
    """No stale answer after an invalidation; every transaction told once, in order."""

    def test_no_stale_answer_after_an_invalidation(self):
        # Once a connection was told that a transaction changed an object, no later answer may give the object's former
        # revision as the current one: the client would cache it as current for good.
        writer, reader = self.raw(), self.raw()
        oid = writer.new_oid()
        first = writer.commit(oid)
        reader.call('ping')
        done = threading.Event()
        tids = [first]

        def write():
            try:
                for _ in range(150):
                    tids.append(writer.commit(oid, tids[-1]))
            finally:
                done.set()

        written = self.in_thread(write)
        rounds = 0
        while not done.is_set() or rounds < 20:
            rounds += 1
            for number in [reader.begin_call('loadBefore', oid, maxtid) for _ in range(20)]:
                flag, (data, tid, end) = reader.reply(number)
                self.assertEqual((flag, end), (0, None))
                for told, _ in reader.invalidations()[-1:]:
                    self.assertGreaterEqual(tid, told)
        written()
        reader.call('ping')
        told = reader.invalidations()
        self.assertEqual([t for t, _ in told], tids)
        self.assertTrue(all(oids == [oid] for _, oids in told))
        self.assertEqual(writer.invalidations(), [])  # who commits isn't told

    def test_a_ping_comes_after_the_own_finish(self):
        # What others commit after the own finish is told behind its answer: a ping that came earlier would promise
        # that all of it was told.
        a, b = self.raw(), self.raw()
        oids = [a.new_oid() for _ in range(2)]
        for n in range(40):
            for c, oid in zip((a, b), oids, strict=True):
                c.store(n, oid, c.call('getTid', oid) if n else z64)
                self.assertEqual(c.vote(n), [])
            finishes = [(c, c.begin_call('tpc_finish', n)) for c in (a, b)]
            ping = a.begin_call('ping')
            tids = [c.reply(number)[1] for c, number in finishes]
            self.assertEqual(a.reply(ping)[0], 0)
            self.assertEqual(a.call('getTid', oids[0]), tids[0])

    def test_who_registers_while_others_commit_misses_nothing(self):
        writer = self.raw()
        oid = writer.new_oid()
        tids = [writer.commit(oid)]
        done = threading.Event()

        def write():
            try:
                for _ in range(150):
                    tids.append(writer.commit(oid, tids[-1]))
            finally:
                done.set()

        written = self.in_thread(write)
        readers = []
        while not done.is_set() and len(readers) < 60:
            readers.append(self.raw())
        written()
        self.assertGreater(len(readers), 3)
        for reader in readers:
            reader.call('ping')
            self.assertEqual([t for t, _ in reader.invalidations()], [t for t in tids if t > reader.last])

    def test_what_changed_since(self):
        c = self.raw()
        oids = [c.new_oid() for _ in range(10)]
        tids = [c.commit(oid) for oid in oids]
        last, changed = c.call('getInvalidations', tids[5])
        self.assertEqual((last, sorted(changed)), (tids[-1], sorted(oids[6:])))
        last, changed = c.call('getInvalidations', tids[-1])
        self.assertEqual((last, list(changed)), (tids[-1], []))

    def test_what_changed_since_survives_a_restart(self):
        c = self.raw()
        oids = [c.new_oid() for _ in range(30)]
        tids = [c.commit(oid) for oid in oids]
        c.store(9, oids[0], tids[0])
        self.assertEqual(c.vote(9), [])  # and never finished
        self.restart()
        c = self.raw()
        if not STOCK:  # (it says the tid that it threw away)
            self.assertEqual(c.last, tids[-1])
            last, changed = c.call('getInvalidations', tids[20])
            self.assertEqual((last, sorted(changed)), (tids[-1], sorted(oids[21:])))
        self.assertEqual(tuple(c.call('loadBefore', oids[0], maxtid)), (record(0), tids[0], None))
        self.assertGreater(c.commit(oids[0], tids[0]), tids[-1])


class Iterators(OneServer):
    """Transactions and their records, one after the other."""

    def test_from_the_first_to_the_last(self):
        c = self.raw()
        oids = [c.new_oid() for _ in range(5)]
        tids = [c.commit(oid) for oid in oids]
        it = c.call('iterator_start', tids[1], tids[3])
        self.assertGreaterEqual(it, 0)
        late = c.commit(c.new_oid())
        for i in 1, 2, 3:
            tid, status, user, description, extension = c.call('iterator_next', it)
            self.assertEqual((tid, status, user, description, extension), (tids[i], ' ', b'user', b'description', {}))
            records = c.call('iterator_record_start', it, tid)
            self.assertEqual(tuple(c.call('iterator_record_next', records)), (oids[i], tid, record(0), None))
            self.assertIsNone(c.call('iterator_record_next', records))
        self.assertIsNone(c.call('iterator_next', it))
        self.assertEqual(c.error('iterator_next', it)[0], 'builtins.KeyError')
        c.async_('iterator_gc', [it, 12345])
        self.assertEqual(c.call('lastTransaction'), late)


class LastIds(OneServer):
    """Objects with the last ids that there are."""

    zrs_only = True
    options = ('--storage', 'upper', '--storage', 'lower')

    def test_ids_at_the_end_of_the_numbers(self):
        # Tools that count down from the last id, or draw ids at random, must not end the supply of new ones.
        c = self.raw(storage='upper')
        for number in (1 << 64) - 1, (1 << 64) - 100, (1 << 63) + 5:
            c.commit(p64(number))
            self.assertEqual(c.call('loadBefore', p64(number), maxtid)[0], record(0))
        new = c.call('new_oids')
        self.assertEqual(len(new), 100)
        self.assertLess(max(map(u64, new)), 1 << 63)
        walked, cursor = [], p64((1 << 63) + 5)
        while cursor is not None:
            oid, _, _, cursor = c.call('record_iternext', cursor)
            walked.append(u64(oid))
        self.assertEqual(walked, [(1 << 63) + 5, (1 << 64) - 100, (1 << 64) - 1])

    def test_when_no_ids_are_left_the_client_is_told(self):
        c = self.raw(storage='lower')
        c.commit(p64((1 << 63) - 3))
        self.assertEqual([u64(oid) for oid in c.call('new_oids')], [(1 << 63) - 2, (1 << 63) - 1])
        name, args = c.error('new_oids')
        self.assertEqual(name, 'builtins.ValueError')
        self.assertIn('no object ids left', args[0])
        c.commit(p64(5))  # what has its id can be stored all the same


class Storages(OneServer):
    """Two storages in one server know nothing of each other."""

    zrs_only = True
    options = ('--storage', 'one', '--storage', 'two')

    def test_they_are_apart(self):
        one, watch, two = (self.raw(storage=name) for name in ('one', 'one', 'two'))
        tids = [one.commit(p64(i)) for i in range(10)]
        for i in range(20):
            two.commit(p64(100 + i))
        last, oids = one.call('getInvalidations', tids[4])
        self.assertEqual((last, sorted(oids)), (tids[-1], [p64(i) for i in range(5, 10)]))
        one.error('loadBefore', p64(100), maxtid)
        watch.call('ping')
        self.assertEqual([t for t, _ in watch.invalidations()], tids)
        one.store(1, p64(1), tids[1])
        self.assertEqual(one.vote(1), [])
        two.commit(p64(1))
        one.call('tpc_finish', 1)
