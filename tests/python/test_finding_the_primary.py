"""How unchanged clients get to the primary: with three addresses, with one that names a secondary, reading only; also
with one node dead."""
import json
import os
import time

import ZODB
from ZODB.POSException import ReadOnlyError
from ZODB.utils import maxtid

from cases import FAILOVER, ThreeNodes, wait_for, zrs_cluster
from objects import record
from raw import Closed, frame

GRACE = 200  # ms; the default of a second would only make the tests longer


class WholeCluster(ThreeNodes):
    """All three nodes are there."""

    is_template = False
    options = ('--relay-grace', str(GRACE))

    def dead(self):
        """Kills nobody here; `OneNodeDead` does."""

    def setUp(self):
        super().setUp()
        self.dead()
        self.primary = self.cluster.wait_primary()
        self.secondary = self.cluster.secondaries()[0]

    def test_a_client_with_three_addresses(self):
        db = self.db()
        name = self.cell(db, 'written')
        with self.db().transaction() as connection:
            self.assertEqual(connection.root()[name].value, 'written')

    def test_a_client_with_one_address_that_names_a_secondary_is_relayed(self):
        began = time.monotonic()
        db = self.db(self.secondary.address)
        self.assertLess(time.monotonic() - began, 5)
        name = self.cell(db, 'written')
        # (Those of tests before may be about to end.)
        wait_for('one relay', lambda: self.secondary.metric('zrs_relays') == 1)
        # Everything goes through: invalidations, conflicts, large answers.
        direct = self.db(self.primary.address)
        self.commit_somewhere(direct, name, b'x' * (3 << 20))
        tid = direct.lastTransaction()
        wait_for('the invalidation', lambda: db.lastTransaction() >= tid)
        self.assertEqual(self.value(db, name), b'x' * (3 << 20))
        one, two = self.open(db), self.open(direct)
        one.root()[name].value = 1
        two.root()[name].value = 2
        two.transaction_manager.commit()
        with self.assertRaises(ZODB.POSException.ConflictError):
            one.transaction_manager.commit()

    def test_a_relayed_client_that_goes_frees_its_locks(self):
        a, b = self.raw(self.secondary.address), self.raw(self.primary.address)
        oid = a.new_oid()
        for c in a, b:
            c.store(1, oid, b'\0' * 8)
        self.assertEqual(a.vote(1), [])
        waiting = b.begin_call('vote', 1)
        self.assertFalse(b.is_answered(waiting, .3))
        a.close()
        self.assertEqual(len(b.reply(waiting)[1]), 0)
        wait_for('no relay', lambda: self.secondary.metric('zrs_relays') == 0)

    def test_a_read_only_client_is_served_by_the_secondary_itself(self):
        db = self.db(self.primary.address)
        name = self.cell(db, 'one')
        reader = self.db(self.secondary.address, read_only=True)
        self.assertEqual(self.value(reader, name), 'one')
        wait_for('no relay', lambda: self.secondary.metric('zrs_relays') == 0)
        # The reader gets invalidations, as from the primary.
        self.commit_somewhere(db, name, 'two')
        tid = db.lastTransaction()
        wait_for('the invalidation', lambda: reader.lastTransaction() >= tid)
        self.assertEqual(self.value(reader, name), 'two')
        with self.assertRaises(ReadOnlyError):
            self.commit_somewhere(reader, name, 'three')

    def test_who_reads_at_a_secondary_reads_what_was_committed_before(self):
        # register and ping wait until the secondary has caught up.
        db = self.db(self.primary.address)
        name = self.cell(db, 0)
        reader = self.db(self.secondary.address, read_only=True, server_sync=True)
        connection = self.open(reader)
        for i in range(1, 30):
            self.commit_somewhere(db, name, i)
            connection.transaction_manager.begin()
            self.assertEqual(connection.root()[name].value, i)
            fresh = self.raw(self.secondary.address, read_only=True)
            self.assertGreaterEqual(fresh.last, db.lastTransaction())
            fresh.close()

    def test_a_read_only_client_with_three_addresses(self):
        name = self.cell(self.db(), 'one')
        self.assertEqual(self.value(self.db(read_only=True), name), 'one')

    def test_a_read_only_fallback_client_gets_to_write(self):
        for address in None, self.secondary.address:
            db = self.db(address, read_only_fallback=True)
            self.assertFalse(db.storage.is_read_only())
            self.cell(db, 'written')

    def test_the_monitor_is_answered_by_every_node(self):
        tid = self.raw(self.primary.address)
        tid = tid.commit(tid.new_oid())
        self.cluster.wait_same()
        for node in self.cluster.running:
            c = self.raw(node.address, greet=False)
            c.send(b'ruok')
            greeting, answer = c.receive(), c.receive()
            self.assertIn(greeting, (b'Z5', b'M5'))
            self.assertEqual(json.loads(answer)['1']['last-transaction'], tid.hex(), str(node))
            self.assertTrue(c.is_closed())

    def test_a_redirected_client_is_told_the_primary(self):
        for node in self.cluster.secondaries():
            c = self.raw(node.address, greet=False)
            c.send(b'R5')
            c.speak(b'M5')
            c.number += 1
            c.send(c.encode(c.number, 0, 'register', ('1', False)))
            message = c.receive()
            if message in (b'Z5', b'M5', b'R5'):
                message = c.receive()
            msgid, flag, name, (kind, data) = c.decode(message)
            self.assertEqual((msgid, flag, kind), (c.number, 2, 'zrs.NotPrimary'))
            self.assertIn('{}:{}'.format(*self.primary.address), str(data))
            c.close()

    def test_the_stock_pack_and_undo_tools_are_answered_on_any_node(self):
        # (zeopack registers read-only and takes the first address that answers.)
        for node in self.cluster.running:
            c = self.raw(node.address, read_only=True)
            flag, _ = c.reply(c.begin_call('undoLog', 0, 5))
            self.assertIn(flag, (0, 2))
            self.assertIsNone(c.call('ping'))

    def test_status_and_health(self):
        self.cluster.wait_same()
        statuses = {node.number: node.status() for node in self.cluster.running}
        for number, status in statuses.items():
            self.assertEqual((status['node'], status['primary']), (number, self.primary.number))
            self.assertEqual(status['role'], 'primary' if number == self.primary.number else 'secondary')
            self.assertEqual(status['last_tid'], self.raw(self.primary.address).last.hex())
        self.assertEqual(len({status['term'] for status in statuses.values()}), 1)
        for node in self.cluster.running:
            self.assertEqual(node.get('/healthz'), 200)
            self.assertEqual(node.get('/readyz'), 200)
            self.assertEqual(node.get('/primary'), 200 if node is self.primary else 503)
            self.assertEqual(node.get('/nothing'), 404)


class OneNodeDead(WholeCluster):
    """All the same with one of three dead: what it refused or left unanswered must not keep anybody from the others."""

    is_template = False

    def dead(self):
        if len(self.cluster.running) == 3:
            self.cluster.secondaries()[0].kill()

    def heal(self):
        # The dead one stays dead for the whole class: the tests are about the others.
        self.resume_all()
        self.cluster.wait_primary()

    def test_status_and_health(self):
        super().test_status_and_health()
        primary = next(n for n in self.cluster.running if n.is_primary())
        self.assertEqual(primary.status()['role'], 'primary')

    def test_the_dead_node_comes_back_and_catches_up(self):
        dead = next(node for node in self.cluster.nodes if not node.is_running())
        db = self.db()
        name = self.cell(db, 'while it was dead')
        dead.process = None
        dead.start()
        self.cluster.wait_ready([dead])
        self.assertEqual(self.value(self.db(dead.address, read_only=True), name), 'while it was dead')


class Holding(ThreeNodes):
    """While there is no primary: silence, so that clients go on looking."""

    is_template = False
    options = ('--relay-grace', str(GRACE))

    def test_without_a_quorum_clients_are_held_and_then_served(self):
        name = self.cell(self.db(), 'one')
        primary = self.cluster.wait_primary()
        survivor = self.cluster.secondaries()[0]
        others = [node for node in self.cluster.nodes if node is not survivor]
        for node in others:
            node.kill()
        # (With a grace as short as here, it would greet while it does not know yet.)
        wait_for('it to notice', lambda: survivor.get('/readyz') == 503)
        early = self.raw(survivor.address, greet=False)
        self.assertTrue(early.is_silent(2 + 5 * GRACE / 1000), 'greeted, or closed')
        self.assertGreaterEqual(survivor.metric('zrs_held'), 1)
        self.assertEqual(survivor.get('/primary'), 503)
        self.assertEqual(survivor.get('/readyz'), 503)
        self.assertEqual(survivor.get('/healthz'), 200)
        self.assertIn(survivor.status()['role'], ('candidate', 'secondary'))
        self.assertIsNone(survivor.status()['primary'])
        # A monitor is answered all the same.
        c = self.raw(survivor.address, greet=False)
        c.send(b'ruok')
        c.receive()
        self.assertIn('1', json.loads(c.receive()))
        # One node is back: there is a primary again, and the waiting client is greeted.
        primary.start()
        early.answer_greeting(timeout=FAILOVER + 10)
        early.call('register', '1', False)
        early.commit(early.new_oid())
        self.assertEqual(self.value(self.db(survivor.address), name), 'one')

    def test_an_election_holds_and_then_greets(self):
        primary = self.cluster.wait_primary()
        others = self.cluster.secondaries()
        primary.kill()
        waiting = [self.raw(node.address, greet=False) for node in others]
        for c in waiting:
            c.answer_greeting(timeout=FAILOVER)
        # Whichever of them it asks, it may write.
        for c in waiting:
            c.call('register', '1', False)
            c.commit(c.new_oid())
        self.cluster.wait_primary()

    def test_a_client_that_starts_before_the_cluster(self):
        self.cluster.kill()
        storage = self.storage(wait=False)
        time.sleep(1)
        self.assertFalse(storage.is_connected())
        self.cluster.start()
        wait_for('the client to be connected', storage.is_connected)

    def test_garbage_while_held(self):
        for node in self.cluster.nodes[1:]:
            node.kill()
        node = self.cluster.nodes[0]
        wait_for('it to know', lambda: node.get('/primary') == 503)
        for data in b'\xff\xff\xff\xff' + bytes(100), frame(b'salty'), frame(b'P1' + os.urandom(32)):
            c = self.raw(node.address, greet=False)
            try:
                c.send_bytes(data)
            except Closed:
                pass
            # (A peer on this machine needs no other proof here; it says nothing sensible and is closed as well.)
            self.assertTrue(c.is_closed(15), data[:20])


class SlowElection(ThreeNodes):
    """An election takes longer than a register waits as a rule."""

    is_template = False
    # (A register waits for 5 s as a rule; nobody stands for election before 1.15 leases are over.)
    options = ('--election-timeout', '5000', '--heartbeat', '200', '--relay-grace', '10500')

    def test_a_register_waits_for_the_end_of_an_election(self):
        primary, secondary = self.cluster.wait_primary(), self.cluster.secondaries()[0]
        c = self.raw(secondary.address, register=False)  # (greeted after the grace)
        primary.lose_power()
        began = time.monotonic()
        # (Two candidates may split the votes, and wait once more.)
        flag, c.last = c.reply(c.begin_call('register', '1', False), 60)
        self.assertFalse(flag, c.last)
        self.assertGreater(time.monotonic() - began, 5, 'the election was too quick for this test')
        c.commit(c.new_oid())


class ReadListen(ThreeNodes):
    """`--read-listen`: an address that serves readers without waiting for anybody."""

    is_template = False
    options = ('--relay-grace', str(GRACE))

    @classmethod
    def setUpClass(cls):
        cls.read_port = zrs_cluster.free_port()
        original = zrs_cluster.Node.__init__

        def with_read_listen(node, cluster, number):
            original(node, cluster, number)
            if number == 1:
                node.options = ['--read-listen', f'127.0.0.1:{cls.read_port}', '--max-lag', '3']
        zrs_cluster.Node.__init__ = with_read_listen
        try:
            super().setUpClass()
        finally:
            zrs_cluster.Node.__init__ = original

    def setUp(self):
        super().setUp()
        self.node = self.cluster.nodes[0]
        self.read_address = '127.0.0.1', self.read_port

    def test_it_reads_without_a_quorum(self):
        name = self.cell(self.db(), 'one')
        self.cluster.wait_same()
        for node in self.cluster.nodes[1:]:
            node.kill()
        wait_for('it to notice', lambda: self.node.get('/primary') == 503 and self.node.get('/readyz') == 503)
        self.assertEqual(self.value(self.db(self.read_address, read_only=True), name), 'one')

    def test_what_is_too_old_is_not_served(self):
        for node in self.cluster.nodes[1:]:
            node.kill()
        time.sleep(4)  # --max-lag and more
        late = self.raw(self.read_address, greet=False)
        self.assertTrue(late.is_silent(1) or late.is_closed(1))
        for node in self.cluster.nodes[1:]:
            node.start()
        self.cluster.wait_ready()
        self.raw(self.read_address, read_only=True).call('ping')

    def test_it_follows_the_primary(self):
        db = self.db()
        name = self.cell(db, 'one')
        reader = self.db(self.read_address, read_only=True)
        self.commit_somewhere(db, name, 'two')
        tid = db.lastTransaction()
        wait_for('the invalidation', lambda: reader.lastTransaction() >= tid)
        self.assertEqual(self.value(reader, name), 'two')

    def test_it_refuses_who_wants_to_write(self):
        c = self.raw(self.read_address, register=False)
        self.assertEqual(c.error('register', '1', False)[0], 'ZODB.POSException.ReadOnlyError')
        c.last = c.call('register', '1', True)
        self.assertEqual(c.error('new_oids')[0], 'ZODB.POSException.ReadOnlyError')

    def test_a_fallback_client_writes_again_when_there_is_a_primary(self):
        name = self.cell(self.db(), 'one')
        for node in self.cluster.nodes[1:]:
            node.kill()
        # (As a secondary it is no primary before it notices, either.)
        wait_for('it to notice', lambda: self.node.get('/primary') == 503 and self.node.get('/readyz') == 503)
        db = self.db([self.read_address] + self.cluster.addresses, read_only_fallback=True)
        self.assertEqual(self.value(db, name), 'one')
        self.assertTrue(db.storage.is_read_only())
        for node in self.cluster.nodes[1:]:
            node.start()
        self.cluster.wait_primary()
        wait_for('the client to be writable', lambda: db.storage.is_connected() and not db.storage.is_read_only(), 30)
        self.commit_somewhere(db, name, 'two')

    def test_a_load_by_tid(self):
        c = self.raw()
        oid = c.new_oid()
        tid = c.commit(oid)
        reader = self.raw(self.read_address, read_only=True)
        wait_for('it to have it', lambda: reader.call('lastTransaction') >= tid)
        self.assertEqual(tuple(reader.call('loadBefore', oid, maxtid)), (record(0), tid, None))
