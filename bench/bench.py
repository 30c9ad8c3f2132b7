#!/usr/bin/env python3
"""Side by side on this machine, in one run: stock ZEO over FileStorage, zrsd with one node, zrsd with three.

    make bench                          a markdown table, in about five minutes
    bench/bench.py [--seconds S] [--kills N] [--only zeo,one,three] [--against DIR]
    bench/bench.py --import DATA.FS     how fast its records get into a data folder, and by copyTransactionsFrom

Loads and commits are made by `examples/load.rs`, as Python clients would be slower than what they measure; failover is
what a connected, unchanged Python client sees. Everything runs on the loopback of one machine, which servers and load
share, so the figures are for comparing, not for planning. $ZRS_BIN is the folder of zrsd (and of examples/load);
--against names one with an earlier zrsd, which is measured beside it.
"""
import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = os.path.join(os.path.dirname(HERE), 'tests', 'python')

sys.path.insert(0, PYTHON)

from into_venv import into_venv

into_venv()

import transaction
import ZEO
import ZODB
from ZODB.blob import copyTransactionsFromTo
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError

from objects import Counter
from zrs_cluster import Cluster, StockServer, binaries, wait_for

CONNECTIONS = 1, 8, 64


def load_program():
    path = os.path.join(binaries(), 'examples', 'load')
    if not os.path.exists(path):
        sys.exit(f'error: {path} is missing; type: cargo build --example load')
    return path


class System:
    """What is measured: its servers, and where the one is that takes the load."""

    def __init__(self, name, servers, address, program=None):
        self.program = program or load_program()
        self.name = name
        self.servers = servers
        self.address = address

    def cpu(self):
        return sum(server.cpu() for server in self.servers)

    def syncs(self):
        """fsyncs of the primary's log so far; None where nobody counts them."""
        for server in self.servers:
            status = getattr(server, 'status', dict)()
            if status.get('role') == 'primary':
                return status.get('log_syncs')
        return None

    def load(self, work, again=False, **options):
        """Runs the load program -> what it measured, and what it cost."""
        command = [self.program, work, '--address', '%s:%d' % self.address()]
        for name, value in options.items():
            command += ['--' + name, str(value)]
        cpu, syncs = self.cpu(), self.syncs()
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, RUST_BACKTRACE='0'))
        if done.returncode and not again:
            # An election on a busy machine, for example: once more, from the start.
            print(f'{self.name}, {work} {options}: {done.stderr.strip()}; once more', file=sys.stderr)
            time.sleep(2)
            return self.load(work, again=True, **options)
        if done.returncode:
            return dict(per_second=float('nan'), p50_ms=float('nan'), p99_ms=float('nan'), cpu_ms=float('nan'), syncs=None,
                        error=done.stderr.strip())
        found = json.loads(done.stdout)
        # The warm-up costs as well: as many per second as were counted.
        seconds = options.get('seconds', 3)
        all_of_them = max(1, found.get('per_second', 0) * (seconds + .5))
        found['cpu_ms'] = (self.cpu() - cpu) * 1e6 / all_of_them
        found['syncs'] = None if syncs is None else (self.syncs() - syncs) / all_of_them
        return found


def measure(system, seconds):
    """-> {row: cell}"""
    system.load('fill')
    rows = {}
    for connections in CONNECTIONS:
        rows['loads', connections, 1] = system.load('loads', connections=connections, seconds=seconds)
    rows['loads', 8, 16] = system.load('loads', connections=8, pipeline=16, seconds=seconds)
    for connections in CONNECTIONS:
        rows['commits', connections, 1] = system.load('commits', connections=connections, seconds=seconds)
    for row, found in rows.items():
        if found.get('error'):
            print(f'{system.name} {row}: {found["error"]}', file=sys.stderr)
    return rows


@contextlib.contextmanager
def with_binaries(folder):
    """Servers that start meanwhile are those of the folder; None: of $ZRS_BIN."""
    before = os.environ.get('ZRS_BIN')
    if folder:
        os.environ['ZRS_BIN'] = folder
    try:
        yield
    finally:
        if folder:
            os.environ.pop('ZRS_BIN')
            os.environ.update({} if before is None else {'ZRS_BIN': before})


def failover(cluster, kills):
    """How long an unchanged client that writes all the time is without an answer when the primary is killed:
    seconds."""
    storage = ZEO.client(cluster.addresses, wait_timeout=30)

    db = ZODB.DB(storage)
    with db.transaction() as connection:
        connection.root()['bench'] = Counter()
    answered = [time.monotonic()]
    stopping = threading.Event()

    def write():
        while not stopping.is_set():
            try:
                with db.transaction() as connection:
                    connection.root()['bench'].increment()
                answered.append(time.monotonic())
            except transaction.interfaces.TransientError:
                pass
            except Exception as e:
                print(f'failover: {e!r}', file=sys.stderr)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    pauses = []
    for _ in range(kills):
        time.sleep(1)
        primary = cluster.wait_primary()
        seen = len(answered)
        primary.kill()
        # (One answer may have been on its way when the primary died.)
        wait_for('the client to go on', lambda: len(answered) >= seen + 2, 60)
        pauses.append(max(after - before for before, after in itertools.pairwise(answered[seen - 1:])))
        primary.start()
        cluster.wait_ready()
    stopping.set()
    writer.join(40)
    db.close()
    return pauses


def figure(value, digits=1):
    if value is None:
        return ''
    if value != value:
        return 'failed'
    return f'{value:,.0f}' if value >= 100 else f'{value:.{digits}f}'


def table(measured, pauses):
    """One markdown table: a row for each work, a column for each system."""
    names = list(measured)
    base = names[0]
    lines = ['| | ' + ' | '.join(names) + ' |', '|---|' + '---|' * len(names)]

    def row(title, cells):
        lines.append(f'| {title} | ' + ' | '.join(cells) + ' |')

    for key in measured[base]:
        work, connections, pipeline = key
        title = f'{work}/s, {connections} connection{"s" if connections > 1 else ""}'
        if pipeline > 1:
            title += f' x {pipeline} pipelined'
        cells = []
        for name in names:
            found = measured[name][key]
            cell = figure(found['per_second'])
            if name != base and measured[base][key]['per_second'] > 0:
                cell += f' ({found["per_second"] / measured[base][key]["per_second"]:.1f} x)'
            cells.append(f'{cell}; p50 {figure(found["p50_ms"], 2)} ms, p99 {figure(found["p99_ms"], 2)} ms')
        row(title, cells)
    row('server CPU ms per 1,000 loads (8 x 16)', [figure(measured[n]['loads', 8, 16]['cpu_ms']) for n in names])
    row('server CPU ms per 1,000 loads (64)', [figure(measured[n]['loads', 64, 1]['cpu_ms']) for n in names])
    row('server CPU ms per 1,000 commits (64)', [figure(measured[n]['commits', 64, 1]['cpu_ms']) for n in names])
    for connections in CONNECTIONS:
        row(f'log fsyncs per commit on the primary, {connections} connections',
            [figure(measured[n]['commits', connections, 1]['syncs'], 2) for n in names])
    if pauses:
        said = f'median {statistics.median(pauses):.2f} s, max {max(pauses):.2f} s of {len(pauses)}'
        row('failover of a connected stock client', [said if n.endswith('three nodes') else '' for n in names])
    return '\n'.join(lines)


def copied(source, storage):
    """copyTransactionsFrom, records only -> seconds"""
    class Records:
        iterator = source.iterator

        def loadBlob(self, oid, serial):
            raise POSKeyError(oid)

    began = time.monotonic()
    copyTransactionsFromTo(Records(), storage)
    seconds = time.monotonic() - began
    storage.close()
    return seconds


def imports(path):
    """-> a markdown table: MB/s into a data folder, and by copyTransactionsFrom."""
    source = FileStorage(path, read_only=True)
    megabytes = os.path.getsize(path) / 1e6
    with tempfile.TemporaryDirectory(prefix='zrs-bench-') as folder:
        began = time.monotonic()
        subprocess.run([os.path.join(binaries(), 'zrsctl'), 'import', path, '--missing-blobs', 'ignore',
                        '--data', os.path.join(folder, 'data')], check=True, stdout=subprocess.DEVNULL)
        rows = {'zrsctl import': time.monotonic() - began}
        rows['copyTransactionsFrom into a FileStorage'] = copied(source, FileStorage(os.path.join(folder, 'copy.fs')))
    with StockServer() as server:
        rows['copyTransactionsFrom into ZEO 6.2 + FileStorage'] = copied(source, ZEO.client(server.addresses))
    with Cluster(1) as cluster:
        cluster.wait_primary()
        rows['copyTransactionsFrom into zrsd, one node'] = copied(source, ZEO.client(cluster.addresses))
    source.close()
    fastest = rows['zrsctl import']
    lines = [f'| {megabytes:.1f} MB of Data.fs | seconds | MB/s | zrsctl import is |', '|---|---|---|---|']
    for name, seconds in rows.items():
        lines.append(f'| {name} | {seconds:.2f} | {megabytes / seconds:.1f} | {seconds / fastest:.1f} x as fast |')
    return '\n'.join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=5, help='for each measurement')
    parser.add_argument('--kills', type=int, default=10)
    parser.add_argument('--only', default='zeo,one,three')
    parser.add_argument('--against', metavar='DIR', help='the folder of an earlier zrsd')
    parser.add_argument('--import', dest='file', metavar='DATA.FS')
    args = parser.parse_args()
    if args.file:
        return print(imports(args.file))
    only = args.only.split(',')
    measured, pauses = {}, []
    if 'zeo' in only:
        with StockServer() as server:
            measured['ZEO 6.2 + FileStorage'] = measure(
                System('zeo', [server], lambda: server.addresses[0]), args.seconds)
    load = load_program()  # (Of this build, for all.)
    builds = [('before: zrsd', args.against)] if args.against else []
    builds.append(('zrsd', None))
    for size, words in (1, 'one node'), (3, 'three nodes'):
        if words.split()[0] not in only:
            continue
        for name, folder in builds:
            with with_binaries(folder), Cluster(size) as cluster:
                cluster.wait_ready()
                system = System(words, cluster.nodes, lambda: cluster.wait_primary().address, load)
                measured[f'{name}, {words}'] = measure(system, args.seconds)
                if size == 3 and not folder and args.kills:
                    pauses = failover(cluster, args.kills)
    with open('/proc/cpuinfo') as f:
        model = next((line.partition(':')[2].strip() for line in f if line.startswith('model name')), 'unknown')
    print(f'{time.strftime("%d %B %Y")}, {os.cpu_count()} cores ({model}), load average at the end {os.getloadavg()[0]:.1f}; '
          'servers and load on one machine; objects of 600 bytes, 2 in each commit.\n')
    print(table(measured, pauses))


if __name__ == '__main__':
    main()
