"""What an application does with a database: unchanged `ZODB.DB` over an unchanged `ZEO.ClientStorage`, one node."""
import os
import threading
import time

import ZODB
from BTrees.Length import Length
from BTrees.OOBTree import OOBTree
from transaction import TransactionManager
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError, POSKeyError, ReadConflictError, ReadOnlyHistoryError
from ZODB.utils import p64, u64, z64

from cases import STOCK, OneServer, begin, both_encodings, wait_for, zrs_only
from objects import Cell, Counter, counter_record, record


@both_encodings
class Transactions(OneServer):
    """Commit, load, conflicts."""

    def told(self, db, by):
        """A client that is told of a conflict has been told of the other's commit, so that it may try again at once."""
        if STOCK:  # there the answer overtakes the invalidation
            wait_for('the invalidation', lambda: db.lastTransaction() >= by.lastTransaction())
        self.assertGreaterEqual(db.lastTransaction(), by.lastTransaction())

    def test_what_is_committed_is_loaded_by_another_client(self):
        name = self.cell(self.db(), {'a': [1, 2.5, 'drei', b'vier', None]})
        with self.db().transaction() as connection:
            self.assertEqual(connection.root()[name].value, {'a': [1, 2.5, 'drei', b'vier', None]})

    def test_many_objects_and_a_large_one_in_one_transaction(self):
        db = self.db()
        with db.transaction() as connection:
            root = connection.root()
            root[self.id()] = tree = OOBTree()
            for i in range(3000):
                tree[i] = Cell(i)
            root[self.id() + 'large'] = Cell(b'x' * (5 << 20))
        with self.db().transaction() as connection:
            tree = connection.root()[self.id()]
            self.assertEqual([tree[i].value for i in range(3000)], list(range(3000)))
            self.assertEqual(len(connection.root()[self.id() + 'large'].value), 5 << 20)

    def test_abort_leaves_nothing(self):
        db = self.db()
        name = self.cell(db, 1)
        connection = self.open(db)
        connection.root()[name].value = 2
        connection.transaction_manager.abort()
        with self.db().transaction() as other:
            self.assertEqual(other.root()[name].value, 1)

    def test_btrees_merge_what_two_clients_insert(self):
        db1, db2 = self.db(), self.db()
        with db1.transaction() as connection:
            connection.root()[self.id()] = OOBTree({'begin': 0})
        one, two = self.open(db1), self.open(db2)
        one.root()[self.id()]['one'] = 1
        two.root()[self.id()]['two'] = 2
        one.transaction_manager.commit()
        two.transaction_manager.commit()
        with self.db().transaction() as connection:
            self.assertEqual(dict(connection.root()[self.id()]), {'begin': 0, 'one': 1, 'two': 2})

    def test_counters_add_up(self):
        db1, db2 = self.db(), self.db()
        names = [self.cell(db1, Counter()), self.cell(db1, Length())]
        one, two = self.open(db1), self.open(db2)
        for connection in one, two:
            connection.root()[names[0]].increment()
            connection.root()[names[1]].change(1)
        one.transaction_manager.commit()
        two.transaction_manager.commit()
        with self.db().transaction() as connection:
            self.assertEqual(connection.root()[names[0]].value, 2)
            self.assertEqual(connection.root()[names[1]].value, 2)

    @zrs_only
    def test_a_client_that_resolves_is_not_overtaken(self):
        # The stock server lets go of the lock while a client resolves; a busy rival then wins again and again.
        name = self.cell(self.db(), Counter())
        errors = []

        def count():
            db = self.db()
            for _ in range(25):
                try:
                    with db.transaction() as connection:
                        connection.root()[name].increment()
                except Exception as e:
                    errors.append(e)

        threads = [threading.Thread(target=count, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(50)
        self.assertEqual(errors, [])
        with self.db().transaction() as connection:
            self.assertEqual(connection.root()[name].value, 100)

    def test_what_cannot_be_resolved_is_a_conflict_error(self):
        db1, db2 = self.db(), self.db()
        name = self.cell(db1, 0)
        one, two = self.open(db1), self.open(db2)
        one.root()[name].value = 1
        two.root()[name].value = 2
        one.transaction_manager.commit()
        with self.assertRaises(ConflictError) as caught:
            two.transaction_manager.commit()
        self.assertEqual(caught.exception.oid, one.root()[name]._p_oid)
        self.assertEqual(caught.exception.serials[0], one.root()[name]._p_serial)
        self.told(db2, db1)
        two.transaction_manager.abort()
        # Tried again, it works:
        self.assertEqual(two.root()[name].value, 1)
        two.root()[name].value = 2
        two.transaction_manager.commit()

    def test_an_object_read_as_current_must_be_current(self):
        db1, db2 = self.db(), self.db()
        read, written = self.cell(db1, 0), self.cell(db1, 0)
        one, two = self.open(db1), self.open(db2)
        root = one.root()
        _ = root[read].value
        one.readCurrent(root[read])
        root[written].value = 1
        two.root()[read].value = 1
        two.transaction_manager.commit()
        with self.assertRaises(ReadConflictError) as caught:
            one.transaction_manager.commit()
        self.assertEqual(caught.exception.oid, root[read]._p_oid)
        self.told(db1, db2)
        one.transaction_manager.abort()
        _ = root[read].value
        one.readCurrent(root[read])
        root[written].value = 1
        one.transaction_manager.commit()

    def test_a_change_reaches_the_other_client(self):
        db1, db2 = self.db(), self.db()
        name = self.cell(db1, 0)
        two = self.open(db2)
        for i in range(1, 20):
            with db1.transaction() as one:
                cell = one.root()[name]
                cell.value = i
            tid = db1.lastTransaction()
            wait_for('the invalidation', lambda: db2.lastTransaction() >= tid)
            two.transaction_manager.begin()
            self.assertEqual(two.root()[name].value, i)

    def test_within_a_transaction_the_view_stands_still(self):
        db1, db2 = self.db(), self.db()
        first, second = self.cell(db1, 'old'), self.cell(db1, 'old')
        two = self.open(db2)
        two.transaction_manager.begin()
        self.assertEqual(two.root()[first].value, 'old')
        with db1.transaction() as one:
            one.root()[first].value = one.root()[second].value = 'new'
        tid = db1.lastTransaction()
        wait_for('the invalidation', lambda: db2.lastTransaction() >= tid)
        self.assertEqual(two.root()[second].value, 'old')
        two.transaction_manager.begin()
        self.assertEqual((two.root()[first].value, two.root()[second].value), ('new', 'new'))

    def test_server_sync_sees_what_was_committed_before(self):
        db1, db2 = self.db(), self.db(server_sync=True)
        name = self.cell(db1, 0)
        two = self.open(db2)
        for i in range(1, 50):
            with db1.transaction() as one:
                one.root()[name].value = i
            two.transaction_manager.begin()
            self.assertEqual(two.root()[name].value, i)


@both_encodings
class History(OneServer):
    """What was: old revisions, who wrote them, whole databases copied in and out."""

    def revisions(self, storage, oid, count):
        tids = []
        serial = z64
        for i in range(count):
            t = begin(storage, user='/ user%d' % i, description='change %d' % i, extension={'number': i})
            storage.store(oid, serial, record(i), '', t)
            storage.tpc_vote(t)
            serial = storage.tpc_finish(t)
            tids.append(serial)
        return tids

    def test_old_revisions_are_loaded_by_tid(self):
        storage = self.storage()
        oid = storage.new_oid()
        tids = self.revisions(storage, oid, 5)
        self.assertEqual(tids, sorted(set(tids)))
        for i, tid in enumerate(tids):
            self.assertEqual(storage.loadSerial(oid, tid), record(i))
            if i:
                self.assertEqual(storage.loadBefore(oid, tid), (record(i - 1), tids[i - 1], tid))
        self.assertIsNone(storage.loadBefore(oid, tids[0]))
        self.assertEqual(storage.load(oid), (record(4), tids[4]))
        self.assertEqual(storage.getTid(oid), tids[4])
        with self.assertRaises(POSKeyError):
            storage.loadSerial(oid, p64(u64(tids[4]) + 1))
        unknown = p64(1 << 60)
        for call in storage.load, storage.getTid, lambda oid: storage.loadBefore(oid, tids[4]):
            with self.assertRaises(POSKeyError):
                call(unknown)

    def test_history_says_who_and_what(self):
        storage = self.storage()
        oid = storage.new_oid()
        tids = self.revisions(storage, oid, 5)
        history = storage.history(oid, size=3)
        self.assertEqual([h['tid'] for h in history], tids[:1:-1])
        newest = history[0]
        self.assertEqual((newest['user_name'], newest['description'], newest['number'], newest['size']),
                         (b'/ user4', b'change 4', 4, len(record(4))))
        self.assertEqual(len(storage.history(oid, size=100)), 5)
        with self.assertRaises(POSKeyError):
            storage.history(p64(1 << 60))

    def test_a_database_as_of_then(self):
        db = self.db()
        name = self.cell(db, 'then')
        then = db.lastTransaction()
        with db.transaction() as connection:
            connection.root()[name].value = 'now'
        old = db.open(TransactionManager(), at=then)
        self.assertEqual(old.root()[name].value, 'then')
        old.root()[name].value = 'never'
        with self.assertRaises(ReadOnlyHistoryError):
            old.transaction_manager.commit()
        old.transaction_manager.abort()
        old.close()

    def test_object_ids_are_not_given_twice(self):
        one, two = self.storage(), self.storage()
        oids = [storage.new_oid() for _ in range(250) for storage in (one, two)]
        self.assertEqual(len(set(oids)), 500)

    @zrs_only
    def test_object_ids_are_not_given_twice_over_a_kill(self):
        # (The stock server does: it counts on from the highest one that was stored.)
        storage = self.storage()
        before = {storage.new_oid() for _ in range(250)}
        self.restart(kill=True)
        storage = self.storage()
        after = {storage.new_oid() for _ in range(250)}
        self.assertEqual(before & after, set())

    def test_records_one_by_one(self):
        storage = self.storage()
        oid = storage.new_oid()
        self.revisions(storage, oid, 2)
        seen, after = [], None
        while True:
            at, tid, data, after = storage.record_iternext(after)
            seen.append(at)
            if at == oid:
                self.assertEqual(data, record(1))
            if after is None:
                break
        self.assertEqual(seen, sorted(set(seen)))
        self.assertIn(oid, seen)


@both_encodings
class Copies(OneServer):
    """Whole databases copied in and out."""

    def test_copied_in_and_out_it_is_the_same(self):
        folder = self.temporary_folder()
        source = FileStorage(os.path.join(folder, 'Source.fs'))
        serials = {}
        for i in range(30):
            t = begin(source, user='user %d' % i, description='größer' if i % 2 else '',
                      extension={'i': i, 'nested': {'a': (1, None, b'\xff')}} if i % 3 else {})
            for oid in {p64(i % 7 + 1), p64(i + 100)}:
                source.store(oid, serials.get(oid, z64), counter_record(i), '', t)
            touched = {p64(i % 7 + 1), p64(i + 100)}
            source.tpc_vote(t)
            tid = source.tpc_finish(t)
            serials.update({oid: tid for oid in touched})
        storage = self.storage()
        if not STOCK:
            self.assertEqual(storage.lastTransaction(), z64)
        storage.copyTransactionsFrom(source)
        self.assertEqual(storage.lastTransaction(), source.lastTransaction())

        def all_of(database):
            return [(t.tid, t.status, t.user, t.description, dict(t.extension), [(r.oid, r.tid, r.data) for r in t])
                    for t in database.iterator()]
        expected = all_of(source)
        self.assertEqual(all_of(storage), expected)
        # And from one tid to another, both included:
        some = [t.tid for t in storage.iterator(expected[5][0], expected[9][0])]
        self.assertEqual(some, [t[0] for t in expected[5:10]])
        # An object id that came in is not given out.
        fresh = storage.new_oid()
        self.assertNotIn(u64(fresh), {u64(oid) for oid in serials})
        source.close()

    def test_what_is_copied_must_be_later_than_what_is_there(self):
        storage = self.storage()
        t = begin(storage)
        storage.store(storage.new_oid(), z64, record(1), '', t)
        storage.tpc_vote(t)
        tid = storage.tpc_finish(t)
        if STOCK:
            return  # it takes the tid as it is
        late = TransactionMetaData()
        storage.tpc_begin(late, tid=p64(u64(tid) - 1000))
        storage.restore(storage.new_oid(), p64(u64(tid) - 1000), record(2), '', None, late)
        with self.assertRaises(Exception) as caught:
            storage.tpc_vote(late)
        self.assertNotIn('Disconnected', type(caught.exception).__name__)
        storage.tpc_abort(late)
        self.assertEqual(storage.lastTransaction(), tid)


@both_encodings
class Reconnects(OneServer):
    """What a client still knows when it comes back."""

    def test_a_cache_on_disk_is_verified_and_used(self):
        db = self.db()
        names = [self.cell(db, 'old') for _ in range(10)]
        cache = dict(client='verify', var=self.temporary_folder())

        def read():
            storage = self.storage(**cache)
            loads = storage.server_status()['loads']
            other = ZODB.DB(storage)
            with other.transaction() as connection:
                values = [connection.root()[name].value for name in names]
            loads = storage.server_status()['loads'] - loads
            other.close()
            return values, loads

        values, loads = read()
        self.assertEqual(values, ['old'] * 10)
        self.assertGreaterEqual(loads, 10)
        # While it is away, three objects change.
        with db.transaction() as connection:
            for name in names[:3]:
                connection.root()[name].value = 'new'
        values, loads = read()
        self.assertEqual(values, ['new'] * 3 + ['old'] * 7)
        self.assertEqual(loads, 3, 'the rest comes from the cache')

    def test_a_client_learns_what_changed_while_the_server_was_away(self):
        db1, db2 = self.db(), self.db()
        name = self.cell(db1, 0)
        with db2.transaction() as two:
            self.assertEqual(two.root()[name].value, 0)
        self.restart()
        wait_for('both to be connected again', lambda: db1.storage.is_connected() and db2.storage.is_connected())
        with db1.transaction() as one:
            one.root()[name].value = 1
        tid = db1.lastTransaction()
        wait_for('the invalidation', lambda: db2.lastTransaction() >= tid)
        with db2.transaction() as two:
            self.assertEqual(two.root()[name].value, 1)

    def test_a_kill_loses_nothing_that_was_answered(self):
        db = self.db()
        names = [self.cell(db, i) for i in range(20)]
        self.restart(kill=True)
        with self.db().transaction() as connection:
            self.assertEqual([connection.root()[name].value for name in names], list(range(20)))

    def test_changes_of_any_age_are_told_exactly(self):
        c = self.raw()
        tids = [c.commit(c.new_oid()) for _ in range(250)]
        if STOCK:
            tids = tids[-50:]  # its queue has 100
        last, changed = c.call('getInvalidations', tids[0])
        self.assertEqual(last, tids[-1])
        self.assertEqual(len(set(changed)), len(tids) - 1)
        self.assertEqual(c.call('getInvalidations', tids[-1])[0], tids[-1])


@both_encodings
class Timeouts(OneServer):
    """A client that votes and never finishes."""

    transaction_timeout = 3  # (between vote and finish, on a busy machine)

    @zrs_only
    def test_the_timeout_frees_the_locks(self):
        # (The stock server forgets to.)
        a, b = self.raw(), self.raw()
        oid = a.new_oid()
        a.store(1, oid, z64, record(1))
        self.assertEqual(a.vote(1), [])
        b.store(1, oid, z64, record(2))
        waiting = b.begin_call('vote', 1)
        self.assertTrue(a.is_closed())
        self.assertIn(b.reply(waiting), ((0, []), (0, ())))
        tid = b.call('tpc_finish', 1)
        self.assertEqual(b.call('loadBefore', oid, b'\x7f' + b'\xff' * 7)[:2], (record(2), tid))

    def test_it_does_not_run_before_the_vote(self):
        a = self.raw()
        a.store(1, a.new_oid(), z64, record(1))
        time.sleep(self.transaction_timeout + 1)
        self.assertEqual(a.vote(1), [])
        a.call('tpc_finish', 1)
