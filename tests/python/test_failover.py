"""Nodes that die, stop, stall and come back under connected, unchanged clients."""
import os
import signal
import subprocess
import threading
import time

import transaction
from ZEO.Exceptions import ClientDisconnected
from ZODB.utils import maxtid, z64

from cases import FAILOVER, ThreeNodes, wait_for, zrs_cluster
from objects import Counter, record
from raw import Closed
from zrs_cluster import is_witness

ELECTION_TIMEOUT = .25  # zrsd's default; it is drawn from once to twice this
SLACK = 2.5  # a busy machine


class Writer:
    """A stock client that counts in a thread, as an application would: again after an error that says so."""

    def __init__(self, case, address=None):
        self.case = case
        self.db = case.db(address)
        self.name = case.cell(self.db, Counter())
        self.finish = self.db.storage.tpc_finish
        self.db.storage.tpc_finish = self.tpc_finish
        self.acknowledged = 0
        self.unknown = 0
        self.errors = []
        self.longest = 0
        self.lasts = time.monotonic()
        self.stopping = threading.Event()
        self.result = case.in_thread(self.run)

    def tpc_finish(self, *args):
        try:
            return self.finish(*args)
        except ClientDisconnected:
            self.unknown += 1
            raise

    def run(self):
        while not self.stopping.is_set():
            try:
                with self.db.transaction() as connection:
                    connection.root()[self.name].increment()
                self.acknowledged += 1
                now = time.monotonic()
                self.longest = max(self.longest, now - self.lasts)
                self.lasts = now
            except transaction.interfaces.TransientError:
                pass
            except Exception as e:
                self.errors.append(e)
                time.sleep(.05)

    def quiet(self):
        """The longest pause so far, in which nothing had happened to any node; the next ones count from here."""
        self.goes_on()
        longest, self.longest = self.longest, 0
        return longest

    def goes_on(self, timeout=None):
        """Waits for two more commits: the second was begun after now."""
        wanted = self.acknowledged + 2
        wait_for(lambda: f'the client to go on: {self.errors} {self.case.cluster.situation()}',
                 lambda: self.acknowledged >= wanted, timeout)

    def stop(self):
        """No answered commit is lost, none counts twice, and what raised was meant to."""
        self.stopping.set()
        self.result(40)
        value = self.case.value(self.case.db(), self.name)
        self.case.assertGreaterEqual(value, self.acknowledged, 'an answered commit is lost')
        self.case.assertLessEqual(value, self.acknowledged + self.unknown, 'more than was ever committed')
        self.case.assertEqual(self.errors, [])


class Killed(ThreeNodes):
    """kill -9"""

    is_template = False

    def kill_primary(self):
        primary = self.cluster.wait_primary()
        began = time.monotonic()
        primary.kill()
        return primary, began

    def test_a_client_with_three_addresses_goes_on(self):
        writer = Writer(self)
        quiet = writer.quiet()
        primary, began = self.kill_primary()
        writer.goes_on()
        print(f'went on {time.monotonic() - began:.2f} s after the kill; the longest pause was {writer.longest:.2f} s')
        self.assertLess(writer.longest, FAILOVER / 2 + 10 * quiet)
        writer.stop()
        self.assertIsNot(self.cluster.primary(), primary)

    def test_a_client_with_the_address_of_a_survivor_goes_on(self):
        writer = Writer(self, self.cluster.secondaries()[0].address)
        writer.goes_on()
        self.kill_primary()
        writer.goes_on()
        writer.stop()

    def test_readers_at_a_secondary_do_not_notice(self):
        db = self.db(self.cluster.wait_primary().address)
        name = self.cell(db, 'here')
        reader = self.db(self.cluster.secondaries()[0].address, read_only=True)
        self.assertEqual(self.value(reader, name), 'here')
        self.kill_primary()
        self.assertEqual(self.value(reader, name), 'here')
        self.cluster.wait_primary()
        writer = self.db()
        self.commit_somewhere(writer, name, 'there')
        wait_for('the invalidation', lambda: reader.lastTransaction() >= writer.lastTransaction(), FAILOVER)
        self.assertEqual(self.value(reader, name), 'there')

    def test_a_secondary_dies_and_nobody_notices(self):
        writer = Writer(self)
        quiet = writer.quiet()
        self.cluster.secondaries()[0].kill()
        writer.goes_on()
        self.assertLess(writer.longest, 2 + 10 * quiet)
        writer.stop()
        self.assertEqual(writer.unknown, 0)

    def test_object_ids_stay_unique(self):
        storage = self.storage()
        oids = [storage.new_oid() for _ in range(150)]
        self.kill_primary()
        self.cluster.wait_primary()
        other = self.storage()
        for _ in range(150):
            oids += [other.new_oid()]
            oids += [storage.new_oid()]
        self.assertEqual(len(set(oids)), len(oids))

    def test_transaction_ids_grow_and_what_was_voted_is_gone(self):
        c = self.raw(self.cluster.wait_primary().address)
        oid = c.new_oid()
        tid = c.commit(oid)
        c.store(1, oid, tid, record('voted'))
        self.assertEqual(c.vote(1), [])
        self.kill_primary()
        self.assertTrue(c.is_closed())
        c = self.raw(self.cluster.wait_primary().address)
        self.assertEqual(c.last, tid)
        self.assertEqual(tuple(c.call('loadBefore', oid, maxtid)), (record(0), tid, None))
        self.assertGreater(c.commit(oid, tid), tid)

    def test_a_warm_cache_stays_coherent(self):
        one, two = self.db(), self.db()
        names = [self.cell(one, 0) for _ in range(5)]
        for name in names:
            self.value(two, name)
        for round in range(1, 3):
            self.kill_primary()[0].start()
            self.commit_somewhere(one, names[round], round)
            tid = one.lastTransaction()
            wait_for('the other to know', lambda: two.lastTransaction() >= tid, FAILOVER)
            self.assertEqual([self.value(two, name) for name in names],
                             [self.value(self.db(), name) for name in names])
            self.cluster.wait_ready()


class Witnessed(ThreeNodes):
    """kill -9 of a primary with a long lease, before whose end nobody else stands for election unless they are told."""

    is_template = False
    LEASE = 6  # (a node that is started again waits for so long)
    options = ('--election-timeout', str(LEASE * 1000))

    def successor(self, primary):
        """The next primary, which is there long before the lease is over."""
        began = time.monotonic()
        successor = self.cluster.wait_primary(other_than=primary)
        self.assertLess(time.monotonic() - began, self.LEASE)
        return successor

    def primary(self):
        # (A majority has to be left without it.)
        self.cluster.wait_ready()
        primary = self.cluster.wait_primary()
        wait_for('its witness', primary.witness)
        return primary

    def test_others_take_over_at_once(self):
        writer = Writer(self)
        for _ in range(2):
            primary = self.primary()
            writer.goes_on()
            primary.kill()
            successor = self.successor(primary)
            writer.goes_on()
            self.assertIn('has ended, its witness says', successor.log_text())
            primary.start()
        writer.stop()

    def test_one_that_stands_still_is_not_dead(self):
        primary = self.primary()
        reign = primary.status()['reign']
        primary.pause()
        # (Many times as long as the others take for a dead one.)
        time.sleep(self.LEASE / 3)
        self.assertEqual([node.is_primary() for node in self.cluster.nodes if node is not primary], [False, False])
        primary.resume()
        self.assertEqual(primary.status()['reign'], reign)
        c = self.raw(primary.address)
        c.commit(c.new_oid())

    def test_a_witness_that_ends_is_followed_by_another(self):
        primary = self.primary()
        reign = primary.status()['reign']
        first = primary.witness()
        os.kill(first, signal.SIGKILL)
        wait_for('another witness', lambda: primary.witness() not in (None, first))
        self.assertEqual(primary.status()['reign'], reign)
        self.assertIn('the witness of this process has ended', primary.log_text())
        primary.kill()
        self.successor(primary)

    def test_a_witness_heeds_no_signal_but_the_last(self):
        primary = self.primary()
        witness = primary.witness()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            os.kill(witness, number)
        primary.kill()
        self.successor(primary)
        wait_for('the witness to end', lambda: not is_witness(witness))

    def test_a_planned_end_leaves_no_witness(self):
        primary = self.primary()
        witness = primary.witness()
        self.assertEqual(primary.terminate(), 0)
        wait_for('the witness to end', lambda: not is_witness(witness))
        self.successor(primary)

    def test_nobody_else_can_say_that_it_is_dead(self):
        primary, other = self.primary(), self.cluster.secondaries()[0]
        reign = primary.status()['reign']
        for frame in (b'O1', b'O1' + bytes(100), b'O1' + b'\xff' * 100):
            c = self.raw(other.address, greet=False)
            c.send(frame)
            self.assertTrue(c.is_closed())
        wait_for('it to be refused', lambda: 'an obituary that no member has signed' in other.log_text())
        self.assertEqual(primary.status()['reign'], reign)


class Stopped(ThreeNodes):
    """SIGTERM, one by one and all."""

    is_template = False

    def test_the_primary_hands_over(self):
        writer = Writer(self)
        quiet = writer.quiet()
        primary = self.cluster.wait_primary()
        primary.signal(signal.SIGTERM)
        self.assertEqual(primary.wait_end(), 0)
        writer.goes_on()
        print(f'the longest pause of a hand-over: {writer.longest:.2f} s')
        self.assertLess(writer.longest, FAILOVER / 2 + 10 * quiet)
        writer.stop()
        self.assertEqual(writer.unknown, 0, 'what was begun is finished before it hands over')

    def test_a_rolling_restart(self):
        writer = Writer(self)
        for node in self.cluster.nodes:
            writer.goes_on()
            self.assertEqual(node.terminate(), 0)
            writer.goes_on()
            node.start()
            self.cluster.wait_ready([node])
        writer.stop()

    def test_all_stop_and_start_and_a_cold_client_reads(self):
        db = self.db()
        names = [self.cell(db, i) for i in range(10)]
        last = db.lastTransaction()
        for node in self.cluster.nodes:
            node.signal(signal.SIGTERM)
        self.assertEqual([node.wait_end() for node in self.cluster.nodes], [0, 0, 0])
        self.cluster.start()
        cold = self.db()
        self.assertGreaterEqual(cold.lastTransaction(), last)
        self.assertEqual([self.value(cold, name) for name in names], list(range(10)))
        # And the client that was there before goes on.
        self.commit_somewhere(db, names[0], 'again')


class Stalled(ThreeNodes):
    """SIGSTOP: a node that is there and does nothing."""

    is_template = False

    def test_without_a_quorum_writers_are_let_go(self):
        primary = self.cluster.wait_primary()
        c = self.raw(primary.address)
        c.commit(c.new_oid())
        began = time.monotonic()
        for node in self.cluster.secondaries():
            node.pause()
        self.assertTrue(c.is_closed(4 * ELECTION_TIMEOUT + SLACK))
        print(f'closed {time.monotonic() - began:.2f} s after the quorum was lost')
        self.assertEqual(primary.get('/primary'), 503)
        # And a new one is held.
        held = self.raw(primary.address, greet=False)
        self.assertTrue(held.is_silent(1.5))
        self.resume_all()
        held.answer_greeting(timeout=FAILOVER)
        held.call('register', '1', False)
        held.commit(held.new_oid())

    def test_a_commit_without_a_quorum_is_never_answered_as_done(self):
        primary = self.cluster.wait_primary()
        c = self.raw(primary.address)
        oid = c.new_oid()
        tid = c.commit(oid)
        c.store(1, oid, tid, record('unknown'))
        self.assertEqual(c.vote(1), [])
        for node in self.cluster.secondaries():
            node.pause()
        try:
            flag, answer = c.reply(c.begin_call('tpc_finish', 1), 15)
            self.assertEqual(flag, 2, f'answered {answer} without a quorum')
        except Closed:
            pass
        self.resume_all()
        self.cluster.wait_primary()
        # The transaction may have been committed or not; both are whole.
        c = self.raw(self.cluster.wait_primary().address)
        data, serial, end = c.call('loadBefore', oid, maxtid)
        self.assertIsNone(end)
        self.assertIn((data, serial == tid), ((record(0), True), (record('unknown'), False)))
        c.commit(oid, serial)

    def test_a_stalled_primary_is_replaced_and_finds_its_place_again(self):
        primary = self.cluster.wait_primary()
        stale = self.raw(primary.address)
        oid = stale.new_oid()
        tid = stale.commit(oid)
        primary.pause()
        successor = self.cluster.wait_primary(other_than=primary)
        c = self.raw(successor.address)
        newer = c.commit(oid, tid, record('newer'))
        primary.resume()
        # A client of the old primary is told nothing stale and let go.
        try:
            number = stale.begin_call('loadBefore', oid, maxtid)
            flag, answer = stale.reply(number, FAILOVER)
            self.assertEqual(answer[1], tid if not flag else None)
        except Closed:
            pass
        self.assertTrue(stale.is_closed(FAILOVER))
        wait_for('it to be ready as a secondary', lambda: primary.is_ready() and not primary.is_primary())
        self.assertEqual(self.raw(primary.address, read_only=True).call('loadBefore', oid, maxtid)[1], newer)

    def test_a_client_of_a_stalled_primary_goes_on_when_it_wakes(self):
        writer = Writer(self)
        writer.goes_on()
        primary = self.cluster.wait_primary()
        primary.pause()
        self.cluster.wait_primary(other_than=primary)
        other = self.db([node.address for node in self.cluster.nodes if node is not primary])
        self.cell(other, 'meanwhile')
        primary.resume()
        writer.goes_on()
        writer.stop()


class ByHand(ThreeNodes):
    """What operators do."""

    is_template = False

    def zrsctl(self, *arguments):
        done = subprocess.run([os.path.join(zrs_cluster.binaries(), 'zrsctl'), *arguments], capture_output=True, text=True,
                              timeout=60)
        return done.returncode, done.stdout + done.stderr

    def test_status_at_a_glance(self):
        primary = self.cluster.wait_primary()
        for node in self.cluster.nodes:
            code, text = wait_for('all to be well', lambda: next(
                (told for told in [self.zrsctl('status', '--http', f'127.0.0.1:{node.http}')] if told[0] == 0), None))
            self.assertIn('primary', text)
            self.assertIn(str(primary.number), text)

    def test_the_role_is_handed_to_whom_one_names(self):
        writer = Writer(self)
        for _ in range(2):
            writer.goes_on()
            self.cluster.wait_primary()
            target = self.cluster.secondaries()[-1]
            asked = self.cluster.secondaries()[0]
            text = self.hand_over(lambda: self.zrsctl('transfer', '--to', str(target.number),
                                                      '--http', f'127.0.0.1:{asked.http}'))
            # ("Already", if one that took long has come to its end meanwhile.)
            self.assertRegex(text, f'Node {target.number} is the primary (now|already)')
            wait_for('the other to be primary', target.is_primary)
        writer.goes_on()
        writer.stop()
        self.assertEqual(writer.unknown, 0)

    def test_nobody_to_hand_it_to(self):
        code, text = self.zrsctl('--http', f'127.0.0.1:{self.cluster.wait_primary().http}', 'transfer', '--to', '9')
        self.assertNotEqual(code, 0, text)
        self.assertIn('no member of this cluster; its members are 1, 2, 3', text)
        self.cluster.wait_primary()
        # A dead node: the primary says so at once, and goes on.
        primary, dead = self.cluster.wait_primary(), self.cluster.secondaries()[-1]
        dead.kill()
        wait_for('the primary to miss it', lambda: any(
            member['node'] == dead.number and (member['silence_ms'] or 0) > 1000
            for member in primary.status()['members']))
        status = primary.status()
        code, text = self.zrsctl('--http', f'127.0.0.1:{primary.http}', 'transfer', '--to', str(dead.number))
        self.assertNotEqual(code, 0, text)
        self.assertIn(f"node {dead.number} can't take over", text)
        self.assertTrue(primary.is_primary())
        self.assertEqual(primary.status()['reign'], status['reign'])
        c = self.raw(self.cluster.wait_primary().address)
        c.commit(c.new_oid(), z64)
