"""How cost grows: with the objects of a database, connections, readers, the size of records, and their revisions.

Of a single node, with as much memory for the page cache as the machine has. Each table varies one thing.
"""
import contextlib
import sys
import time

from systems import System
from zrs_cluster import Cluster, usage


@contextlib.contextmanager
def node():
    with Cluster(1) as cluster:
        cluster.wait_ready()
        yield System('zrsd', 'one', cluster.nodes, lambda: cluster.wait_primary().address, cluster)


def start(system):
    """Restarts the node -> seconds until it serves."""
    [server] = system.cluster.nodes
    server.terminate(60)
    began = time.monotonic()
    server.start()
    system.cluster.wait_primary()
    return time.monotonic() - began


def rates(system, seconds, **options):
    """Loads of all objects, and commits: of eight connections."""
    stored = {'objects': options.pop('objects')} if 'objects' in options else {}
    loads = system.load('loads', connections=8, seconds=seconds, **stored)
    commits = system.load('commits', connections=8, seconds=seconds, **options)
    return [f'{found["per_second"]:,.0f}' if 'per_second' in found else 'failed' for found in (loads, commits)]


def table(title, heads, lines):
    print(f'\n{title}\n')
    print('| ' + ' | '.join(heads) + ' |')
    print('|--:' * len(heads) + '|')
    for cells in lines:
        print('| ' + ' | '.join(cells) + ' |', flush=True)


def said(what):
    print(what, file=sys.stderr, flush=True)
    return what


def by_objects(seconds, most):
    count = 10_000
    while count <= most:
        said(f'{count:,} objects')
        with node() as system:
            filled = system.load('fill', objects=count)
            loads, commits = rates(system, seconds, objects=count)
            hot = system.load('loads', connections=8, seconds=seconds, objects=2_000)['per_second']
            [server] = system.cluster.nodes
            memory = system.memory() / 1e6
            yield [f'{count:,}', f'{filled["mb_per_second"]:.1f}', loads, f'{hot:,.0f}', commits, f'{start(system):.2f}',
                   f'{memory:.0f}', f'{usage(server.data) / 1e6:,.0f}']
        count *= 10


def by_connections(seconds):
    with node() as system:
        system.load('fill')
        for count in 1, 10, 100, 1_000:
            said(f'{count:,} connections')
            loads, commits = (system.load(work, connections=count, seconds=seconds) for work in ('loads', 'commits'))
            yield [f'{count:,}', *(f'{found["per_second"]:,.0f}; p99 {found["p99_ms"]:.2f} ms' for found in (loads, commits)),
                   f'{system.memory() / 1e6:.0f}']


def by_readers(seconds):
    with node() as system:
        for count in 1, 10, 100, 1_000:
            said(f'{count:,} readers')
            found = system.load('news', connections=count, seconds=seconds)
            yield [f'{count:,}', f'{found["p50_ms"]:.2f}', f'{found["p99_ms"]:.2f}']


def by_size(seconds):
    for size in 100, 1_000, 10_000, 100_000, 1_000_000:
        said(f'records of {size:,} bytes')
        with node() as system:
            count = max(100, min(2_000, 100_000_000 // size))
            system.load('fill', objects=count, size=size)
            loads, commits = rates(system, seconds, objects=count, size=size)
            yield [f'{size:,}', loads, commits]


def by_revisions(seconds):
    for revisions in 1, 10, 100, 1_000:
        said(f'{revisions:,} revisions')
        with node() as system:
            system.load('fill', objects=1_000, revisions=revisions)
            yield [f'{revisions:,}', *rates(system, seconds, objects=1_000), f'{start(system):.2f}']


def grow(seconds, most, machine):
    print(f'{time.strftime("%d %B %Y")}, {machine}; one node; objects of 600 bytes and eight connections unless it says '
          'otherwise.')
    table('Objects in the database', ['objects', 'filled, MB/s', 'loads/s of any', 'loads/s of 2,000', 'commits/s', 'start, s',
                                      'memory, MB', 'disk, MB'], by_objects(seconds, most))
    table('Connections', ['connections', 'loads/s', 'commits/s', 'memory, MB'], by_connections(seconds))
    table('Clients that are told of a commit', ['clients', 'p50, ms', 'p99, ms'], by_readers(seconds))
    table('Size of records', ['bytes', 'loads/s', 'commits/s'], by_size(seconds))
    table('Revisions of each of 1,000 objects', ['revisions', 'loads/s', 'commits/s', 'start, s'], by_revisions(seconds))
