#!/usr/bin/env python3
"""Large things and long races against three nodes, with figures; the last line says `N passed, N failed`.

    tests/python/stress.py [large] [races] [--minutes 10] [--scale 1.0]

`large`: a transaction of 1 GB, one of 100,000 objects, an object of 64 MB and a blob of 2 GB, up and down again; a
client that dies in the middle of a large transaction, and one that aborts it; a node that lost its disk and fetches
the database. All the while another client commits small transactions. For each step the table has the growth of each
node's memory at its peak, over what it had when the step began (and, of the node that has most, over what it had
before the first step: this includes RocksDB's caches, which fill up to their limits), and the latencies of the small
commits. `--scale 0.1` does it with a tenth of everything, to see that it works.

`races`: ZODB's own race tests in a loop, with a client per node.

`make stress` builds release binaries for it. It needs some 30 GB of disk at $TMPDIR.
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

from into_venv import into_venv

HERE = os.path.dirname(os.path.abspath(__file__))
MB = 1 << 20
GROWTH = 320 * MB   # what a node's memory may grow by: RocksDB's cache (256), and its writes (64)
SLOWER = 10         # how many times slower than in quiet times small commits may be (at their p99), and fewer
LITTLE = 512 * MB   # the memory of a node that fetches a database
SHORT = 3           # seconds: a step that takes less has too few of them for a p99
SPARE = 64 * MB     # what a node's disk usage may differ by after something was discarded
BLOCK = random.Random(7).randbytes(MB)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='*', choices=['large', 'races', []], help='which part (default: both)')
    parser.add_argument('--minutes', type=float, default=10, help='how long the races go on (default: 10)')
    parser.add_argument('--scale', type=float, default=1.0, help='of the large things (default: 1.0)')
    return parser.parse_args()


class Results:

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, good, detail=''):
        print(f'{"ok" if good else "FAILED":6} {name}{": " + detail if detail else ""}', flush=True)
        if good:
            self.passed += 1
        else:
            self.failed += 1


# Clients, each in a process of its own.

def client(addresses, **options):
    import ZEO
    return ZEO.client([tuple(address) for address in addresses], wait_timeout=60, **options)


def payload(number, size):
    """A record of about that size, which another process can make again. It doesn't compress."""
    from objects import record
    at = number * 7919 % MB
    block = BLOCK[at:] + BLOCK[:at]
    return record(b'%d ' % number + (block * (size // MB + 1))[:size])


def sizes(spec):
    """-> [bytes of each object]"""
    chance = random.Random(spec['seed'])
    if 'count' in spec:
        return [spec['size']] * spec['count']
    found, total = [], 0
    while total < spec['total']:
        found.append(chance.randint(spec['least'], spec['most']))
        total += found[-1]
    return found


def work_transaction(spec):
    """Stores, and then finishes, aborts or dies; reads it all back with a new client."""
    from ZODB.Connection import TransactionMetaData
    from ZODB.utils import p64, u64, z64
    storage = client(spec['addresses'])
    began = time.monotonic()
    txn = TransactionMetaData()
    storage.tpc_begin(txn)
    oids = []
    for number, size in enumerate(sizes(spec)):
        oids.append(storage.new_oid())
        storage.store(oids[-1], z64, payload(number, size), '', txn)
        if number % 50 == 0:
            storage.ping()  # a client that ran ahead would have it all in its own memory
    storage.ping()
    if spec['end'] == 'die':
        tell(began=began, stored=time.monotonic())
        os._exit(0)
    if spec['end'] == 'abort':
        storage.tpc_abort(txn)
        return tell(began=began, stored=time.monotonic(), first=u64(oids[0]))
    storage.tpc_vote(txn)
    voted = time.monotonic()
    tid = storage.tpc_finish(txn)
    finished = time.monotonic()
    storage.close()
    reader = client(spec['addresses'], cache_size=MB)
    for number, size in enumerate(sizes(spec)):
        data, serial = reader.load(oids[number])
        if data != payload(number, size) or serial != tid:
            raise AssertionError(f'object {number} of {size} bytes is not what was stored')
    assert reader.load(p64(u64(oids[0])))[1] == tid
    reader.close()
    tell(began=began, voted=voted, finished=finished, ended=time.monotonic())


def work_blob(spec):
    import hashlib

    from ZODB.Connection import TransactionMetaData
    from ZODB.utils import z64

    from histories import blob_record
    folder = tempfile.mkdtemp(dir=spec['below'])
    path = os.path.join(folder, 'large')
    digest = hashlib.sha1()
    with open(path, 'wb') as f:
        for number in range(spec['size'] // MB):
            block = number.to_bytes(8, 'big') + BLOCK[8:]
            digest.update(block)
            f.write(block)
    storage = client(spec['addresses'], blob_dir=os.path.join(folder, 'up'))
    began = time.monotonic()
    txn = TransactionMetaData()
    storage.tpc_begin(txn)
    oid = storage.new_oid()
    storage.storeBlob(oid, z64, blob_record(), path, '', txn)
    storage.tpc_vote(txn)
    voted = time.monotonic()
    tid = storage.tpc_finish(txn)
    finished = time.monotonic()
    storage.close()
    shutil.rmtree(os.path.join(folder, 'up'))
    reader = client(spec['addresses'], blob_dir=os.path.join(folder, 'down'))
    found = hashlib.sha1()
    with open(reader.loadBlob(oid, tid), 'rb') as f:
        for block in iter(lambda: f.read(MB), b''):
            found.update(block)
    assert found.digest() == digest.digest(), 'the blob is not what was stored'
    reader.close()
    shutil.rmtree(folder)
    tell(began=began, voted=voted, finished=finished, ended=time.monotonic())


def work_small(spec):
    """Commits small transactions until it is killed; a line for each: when it began, its latency, and what went
    wrong."""
    from ZODB.Connection import TransactionMetaData
    from ZODB.utils import z64

    from objects import record
    storage = client(spec['addresses'])
    oid, serial = storage.new_oid(), z64
    with open(spec['file'], 'w', buffering=1) as f:
        number = 0
        while True:
            number += 1
            began = time.monotonic()
            txn = TransactionMetaData()
            lost = ''
            try:
                storage.tpc_begin(txn)
                storage.store(oid, serial, record(number), '', txn)
                storage.tpc_vote(txn)
                serial = storage.tpc_finish(txn)
            except Exception as e:
                lost = type(e).__name__
                storage.tpc_abort(txn)
                if number > 1:
                    serial = storage.getTid(oid)
            f.write(f'{began} {time.monotonic() - began} {lost}\n')
            time.sleep(0.005)


def work_races(spec):
    """ZODB's race tests in a loop, each client with another node than the last."""
    import itertools
    import unittest

    import ZEO
    from ZODB.tests import racetest
    nodes = itertools.cycle([tuple(address) for address in spec['addresses']])

    class Races(racetest.RaceTests, unittest.TestCase):
        # (Upstream runs the third only if all tests are asked for; it is one of the three here.)
        def level(self):
            return 2

        def setUp(self):
            self._storage = self._new_storage_client()

        def tearDown(self):
            self._storage.close()

        def _new_storage_client(self):
            return ZEO.client(next(nodes), wait_timeout=60)

    names = [name for name in dir(racetest.RaceTests) if name.startswith('test_race')]
    deadline = time.monotonic() + spec['seconds']
    runs, failures = {name: 0 for name in names}, []
    for name in itertools.cycle(names):
        if time.monotonic() > deadline and all(runs.values()) or failures:
            break
        result = unittest.TestResult()
        began = time.monotonic()
        Races(name).run(result)
        runs[name] += 1
        failures += [text for _, text in result.failures + result.errors]
        if result.skipped:
            failures.append(f'{name} was skipped: {result.skipped[0][1]}')
        print(f'{name} {time.monotonic() - began:.1f} s', file=sys.stderr, flush=True)
    tell(runs=runs, failures=failures)


def tell(**result):
    print(json.dumps(result), flush=True)


class Worker:
    """A process that runs one of these functions."""

    def __init__(self, name, folder, **spec):
        self.log = os.path.join(folder, f'{name}-{time.monotonic_ns()}.log')
        self.name = name
        with open(self.log, 'w') as log:
            self.process = subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), '--worker', name, json.dumps(spec)], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=log, text=True)

    def result(self, timeout):
        try:
            output, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f'{self.name} took longer than {timeout} s') from None
        lines = [line for line in output.splitlines() if line.startswith('{')]
        if self.process.returncode or not lines:
            with open(self.log) as f:
                raise AssertionError(f'{self.name} ended with status {self.process.returncode}:\n{f.read()[-3000:]}')
        return json.loads(lines[-1])

    def end(self):
        self.process.kill()
        self.process.wait()


# Memory and disk of the nodes.

def memory(node, what):
    with open(f'/proc/{node.pid}/status') as f:
        [line] = [line for line in f if line.startswith(what + ':')]
    return int(line.split()[1]) * 1024


def forget_peak(node):
    with open(f'/proc/{node.pid}/clear_refs', 'w') as f:
        f.write('5')


def percentile(latencies, share):
    return sorted(latencies)[min(len(latencies) - 1, int(len(latencies) * share))] if latencies else float('nan')


class Large:

    def __init__(self, cluster, folder, scale, results):
        self.cluster, self.folder, self.scale, self.results = cluster, folder, scale, results
        self.rows = []
        self.quiet = None

    def run(self):
        self.latencies = os.path.join(self.folder, 'small')
        self.small = Worker('small', self.folder, addresses=self.cluster.addresses, file=self.latencies)
        try:
            time.sleep(3)  # to warm up
            self.before = {node: memory(node, 'VmRSS') for node in self.cluster.nodes}
            self.step('quiet', lambda: time.sleep(max(10 * self.scale, 5)))
            scaled = lambda number: max(1, int(number * self.scale))
            self.transaction('1 GB in one transaction', total=scaled(1 << 30), least=MB, most=10 * MB)
            self.transaction('100,000 objects', count=scaled(100_000), size=100)
            self.transaction('an object of 64 MB', count=1, size=64 * MB - 1000)
            self.step('a blob of 2 GB', self.blob, scaled(2048) * MB)
            for end, name in (('die', 'a client dies in the middle'), ('abort', 'an abort in the middle')):
                self.discarded(name, end, scaled(300 * MB))
            self.step('a wiped node comes back', self.wiped)
        finally:
            self.small.end()
        self.cluster.wait_same()
        self.results.check('all nodes have applied the same', True)
        self.print_table()

    def transaction(self, name, **spec):
        self.step(name, self.transact, dict(spec, seed=1, end='finish'))

    def transact(self, spec):
        worker = Worker('transaction', self.folder, addresses=self.cluster.addresses, **spec)
        return worker.result(1800)

    def blob(self, size):
        return Worker('blob', self.folder, addresses=self.cluster.addresses, below=self.folder, size=size).result(1800)

    def step(self, name, function, *args):
        for node in self.cluster.nodes:
            forget_peak(node)
        resting = {node: memory(node, 'VmRSS') for node in self.cluster.nodes}
        began = time.monotonic()
        try:
            times = function(*args) or {}
        except Exception as e:
            print(e)
            self.results.check(name, False, str(e).strip().splitlines()[-1])
            return
        ended = time.monotonic()
        peaks = {node: memory(node, 'VmHWM') for node in self.cluster.nodes}
        growth = [peak - resting[node] for node, peak in peaks.items()]
        latencies, lost = self.small_commits(began, ended)
        row = dict(name=name, seconds=ended - began, growth=growth,
                   cold=max(peak - self.before[node] for node, peak in peaks.items()), p50=percentile(latencies, .5), p99=percentile(latencies, .99),
                   commits=len(latencies), longest=max(latencies, default=float('nan')))
        if 'finished' in times:
            row['up'] = times['finished'] - times['began']
            row['finish'] = times['finished'] - times['voted']
        self.rows.append(row)
        if self.quiet is None:
            self.quiet = row
        else:
            self.results.check(name, True, f'{row["seconds"]:.1f} s')
            self.results.check(f'{name}: memory', max(growth) < GROWTH, f'{max(growth) / MB:.0f} MB at most')
            times_slower = row['p99'] / self.quiet['p99']
            usual = row['seconds'] * self.quiet['commits'] / self.quiet['seconds']
            self.results.check(f'{name}: small commits go on', len(latencies) > usual / SLOWER,
                               f'{len(latencies)} in a time that has {usual:.0f} when it is quiet')
            if row['seconds'] >= SHORT:
                self.results.check(f'{name}: small commits are quick', times_slower < SLOWER,
                                   f'p99 {row["p99"] * 1000:.0f} ms, {times_slower:.1f} times that of quiet times')
            self.results.check(f'{name}: no small commit is lost', not lost, ', '.join(lost))

    def wiped(self):
        """A secondary that lost its disk is a voter again, by itself, though it has little memory."""
        from memory_limit import MemoryLimit
        from zrs_cluster import usage, wait_for
        primary = self.cluster.wait_primary()
        node = next(node for node in self.cluster.nodes if node is not primary)
        node.kill()
        shutil.rmtree(node.data)
        limit = MemoryLimit(LITTLE)
        try:
            node.start()
            if limit:
                limit.hold(node.pid)
            peaks = dict.fromkeys(self.cluster.nodes, 0)

            def fetching():
                for each in peaks:
                    peaks[each] = max(peaks[each], memory(each, 'VmRSS'))
                return (node.status() or {}).get('fetching')
            source = wait_for('the node to be let in', fetching, 60, pause=.2)['from']
            began = time.monotonic()
            wait_for('the database', lambda: not fetching(), 1800, pause=.2)
            fetched = time.monotonic() - began

            def votes():
                status = node.status() or {}
                parts = {member['node']: member['part'] for member in status.get('members', ())}
                return parts.get(node.number) == 'voter' and not status['changes']
            wait_for('the node to vote', votes, 600, pause=.2)
            if limit:
                self.results.check('a wiped node comes back: in little memory', not limit.killed(),
                                   f'{LITTLE / MB:.0f} MB were its limit')
        finally:
            if limit:
                limit.remove()
        size = usage(os.path.join(primary.data, 'store'))
        sender = next(each for each in self.cluster.nodes if each.number == source)
        self.results.check('a wiped node comes back: fetched', True, f'{size / MB:.0f} MB in {fetched:.1f} s, '
                           f'{size / MB / fetched:.0f} MB/s; it votes after {time.monotonic() - began:.1f} s')
        self.results.check('a wiped node comes back: memory of both', peaks[node] < LITTLE,
                           f'{peaks[node] / MB:.0f} MB at most, and {peaks[sender] / MB:.0f} MB at the sender'
                           + ('' if limit else ' (no limit: this system allows no control group)'))

    def small_commits(self, began, ended):
        """The latencies of those that were under way in that time, and what went wrong with some."""
        found, lost = [], []
        with open(self.latencies) as f:
            for line in f:
                if line.endswith('\n'):
                    at, latency, *error = line.split()
                    at, latency = float(at), float(latency)
                    if at + latency > began and at < ended:
                        found.append(latency)
                        lost += error
        if self.small.process.poll() is not None:
            raise AssertionError('the client of small commits has ended')
        return found, lost

    def discarded(self, name, end, size):
        """What was stored and not committed is nowhere a while later. (But in the log, until that is shortened.)"""
        from zrs_cluster import usage

        def used(node):
            return usage(os.path.join(node.data, 'store'))
        before = {node: used(node) for node in self.cluster.nodes}
        spec = dict(total=size, least=MB, most=10 * MB, seed=2, end=end)
        self.step(name, self.transact, spec)
        peak = {node: used(node) for node in self.cluster.nodes}
        deadline = time.monotonic() + 120
        while True:
            after = {node: used(node) for node in self.cluster.nodes}
            left = max(after[node] - before[node] for node in after)
            if left < SPARE or time.monotonic() > deadline:
                break
            time.sleep(1)
        grown = max(peak[node] - before[node] for node in peak)
        self.results.check(f'{name}: the disk is as it was', left < SPARE,
                           f'{grown / MB:.0f} MB more at first, {left / MB:.0f} MB later')
        self.step(f'{name}: others go on', self.transact, dict(count=100, size=1000, seed=3, end='finish'))

    def print_table(self):
        print(f'\n{"":36} {"s":>7} {"stored in":>9} {"finish":>7} | {"memory, MB more":^32} | {"small commits, ms":^27}')
        print(f'{"":36} {"":>7} {"s":>9} {"ms":>7} | {"node 1":>7} {"node 2":>7} {"node 3":>7} {"cold":>7} | '
              f'{"p50":>6} {"p99":>6} {"most":>6} {"number":>6}')
        for row in self.rows:
            up = f'{row["up"]:9.1f} {row["finish"] * 1000:7.0f}' if 'up' in row else ' ' * 17
            print(f'{row["name"]:36} {row["seconds"]:7.1f} {up} | ' + ' '.join(f'{grown / MB:7.0f}' for grown in (*row['growth'], row['cold']))
                  + f' | {row["p50"] * 1000:6.1f} {row["p99"] * 1000:6.1f} {row["longest"] * 1000:6.0f} {row["commits"]:6}')
        print(flush=True)


def large(args, results):
    from zrs_cluster import Cluster
    needed = int(args.scale * 30 * (1 << 30)) + (1 << 30)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        results.check('room on disk', False, f'{free >> 30} GB free at {tempfile.gettempdir()}, {needed >> 30} GB are needed')
        return
    # Three nodes on one disk: an fsync may take longer here than the lease that separate disks get by default.
    with Cluster(3, options=('--election-timeout', '1000')) as cluster:
        cluster.wait_ready()
        folder = os.path.join(cluster.folder, 'clients')
        os.mkdir(folder)
        Large(cluster, folder, args.scale, results).run()


def races(args, results):
    from zrs_cluster import Cluster
    with Cluster(3) as cluster:
        cluster.wait_ready()
        folder = os.path.join(cluster.folder, 'clients')
        os.mkdir(folder)
        seconds = args.minutes * 60
        told = Worker('races', folder, addresses=cluster.addresses, seconds=seconds).result(seconds + 600)
        for name, runs in told['runs'].items():
            results.check(f'{name}, {runs} times', runs > 0 and not any(name in failure for failure in told['failures']))
        for failure in told['failures']:
            print(failure)
        results.check('no race', not told['failures'])
        for node in cluster.nodes:
            node.check()
        cluster.wait_same()
        results.check('all nodes have applied the same', True)


PARTS = {'large': large, 'races': races}


def main():
    args = arguments()
    results = Results()
    for name in args.parts or PARTS:
        print(f'--- {name}' + (f', sizes times {args.scale}' if name == 'large' and args.scale != 1 else ''), flush=True)
        try:
            PARTS[name](args, results)
        except Exception as e:
            traceback.print_exc()
            results.check(name, False, str(e))
    print(f'{results.passed} passed, {results.failed} failed')
    return 1 if results.failed or not results.passed else 0


if __name__ == '__main__':
    into_venv()
    if sys.argv[1:2] == ['--worker']:
        globals()['work_' + sys.argv[2]](json.loads(sys.argv[3]))
        sys.stdout.flush()
        os._exit(0)  # threads of clients may hang; nothing waits for them
    sys.exit(main())
