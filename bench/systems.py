"""The systems that are measured side by side: their servers, and what a load of them costs."""
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time

from zrs_cluster import Cluster, Process, StockServer, binaries, free_port, give_back, wait_for


def program(name):
    """The path of a program of examples/."""
    path = os.path.join(binaries(), 'examples', name)
    if not os.path.exists(path):
        sys.exit(f'error: {path} is missing; type: cargo build --examples')
    return path


class Floor(Process):
    """examples/floor.rs: the least that a server of this protocol can do."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix='zrs-floor-')
        self.log = os.path.join(self.folder.name, 'log')
        self.port = free_port()

    def __str__(self):
        return 'the floor'

    def command(self):
        return [program('floor'), '--listen', f'127.0.0.1:{self.port}', '--file', os.path.join(self.folder.name, 'file')]

    def __enter__(self):
        self.start()

        def listens():
            self.check()
            with open(self.log) as f:
                return f'\n127.0.0.1:{self.port}\n' in f.read()
        wait_for('the floor to listen', listens)
        return self

    def __exit__(self, *error):
        self.kill()
        give_back([self.port])
        self.folder.cleanup()


class System:
    """A system that runs. `kind`: 'zeo', 'floor', 'one' or 'three' (nodes)."""

    def __init__(self, name, kind, servers, address, cluster=None):
        self.name = name
        self.kind = kind
        self.servers = servers
        self.address = address
        self.cluster = cluster
        # (Of this build, for all systems.)
        self.program = program('load')

    def cpu(self):
        return sum(server.cpu() for server in self.servers)

    def memory(self):
        """Resident bytes of the server that takes the load."""
        if self.cluster is None:
            return self.servers[0].rss()
        return self.cluster.wait_primary().rss()

    def syncs(self):
        """fsyncs of the primary's log so far; None where nobody counts them."""
        if self.cluster is None:
            return None
        return self.cluster.wait_primary().status().get('log_syncs')

    def load(self, work, again=False, **options):
        """Runs the load program -> what it measured, and what it cost; with an `error`, if it can't be measured."""
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
            print(f'{self.name}, {work} {options}: {done.stderr.strip()}', file=sys.stderr)
            return dict(error=done.stderr.strip())
        found = json.loads(done.stdout)
        # The warm-up costs as well: as many per second as were counted.
        counted = found.get('per_second', 0) + found.get('commits_per_second', 0)
        all_of_them = max(1, counted * (options.get('seconds', 3) + .5))
        found['cpu_us'] = (self.cpu() - cpu) * 1e6 / all_of_them
        if syncs is not None:
            found['syncs'] = (self.syncs() - syncs) / all_of_them
        return found


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


@contextlib.contextmanager
def running(kinds, against=None):
    """-> the systems of these kinds; all run at the same time, and only one is under load. `against`: the folder of an
    earlier zrsd, which is measured beside this one."""
    with contextlib.ExitStack() as stack:
        systems = []
        if 'zeo' in kinds:
            server = stack.enter_context(StockServer())
            systems.append(System('ZEO 6.2 + FileStorage', 'zeo', [server], lambda: server.addresses[0]))
        for size, kind, words in (1, 'one', 'one node'), (3, 'three', 'three nodes'):
            for name, folder in [('before: zrsd', against)] * bool(against) + [('zrsd', None)]:
                if kind not in kinds:
                    continue
                with with_binaries(folder):
                    cluster = stack.enter_context(Cluster(size))
                    cluster.wait_ready()

                def address(cluster=cluster):
                    return cluster.wait_primary().address
                systems.append(System(f'{name}, {words}', kind, cluster.nodes, address, cluster))
        if 'floor' in kinds:
            floor = stack.enter_context(Floor())
            systems.append(System('floor', 'floor', [floor], lambda: ('127.0.0.1', floor.port)))
        yield systems
