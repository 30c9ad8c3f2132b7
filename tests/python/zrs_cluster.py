"""Nodes of zrsd as real processes, for the tests and the bench.

    with Cluster(3) as cluster:
        primary = cluster.wait_primary()
        storage = ZEO.client(cluster.addresses)
        primary.kill()                       # SIGKILL
        cluster.wait_primary()
        primary.start()

Everything is on the loopback, with ports below the ephemeral range, so that no client's outgoing connection takes one
between our look and the server's bind. Data and logs lie in one folder; it is removed when the block ends well, and
kept, with the ends of the logs printed, when it ends with an exception. A wait that takes too long is an error that
says what was seen.

`StockServer` is the same for the stock ZEO server: the tests that describe ZEO's own behaviour can be run against it,
and the bench compares with it.
"""
import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.dirname(os.path.dirname(HERE))
# Waits are for things that take well under a second on an idle machine.
PATIENCE = float(os.environ.get('ZRS_TEST_PATIENCE', 30))

_reservations = {}  # port -> an open, locked file: other test processes leave it alone
# (The same for all: a test may say later that its temporary files are to be elsewhere.)
_LOCKS = os.path.join(tempfile.gettempdir(), f'zrs-ports-{os.getuid()}')


class Failure(AssertionError):
    """A server did not do what it had to within the time it had."""


def binaries():
    """The folder with zrsd and zrsctl."""
    if os.environ.get('ZRS_BIN'):
        return os.path.abspath(os.environ['ZRS_BIN'])
    targets = [os.environ.get('CARGO_TARGET_DIR'), os.path.join(CHECKOUT, 'target'),
               os.path.expanduser('~/.cache/zrs/target')]
    for target in filter(None, targets):
        folder = os.path.join(target, 'debug')
        if os.access(os.path.join(folder, 'zrsd'), os.X_OK):
            return folder
    raise Failure('no zrsd binary: build it (cargo build), or say where it is with ZRS_BIN=FOLDER')


def free_port(count=1):
    """The first of so many free ports in a row."""
    os.makedirs(_LOCKS, exist_ok=True)
    chance = random.Random(os.urandom(8))
    for _ in range(1000):
        first = chance.randrange(20000, 32000)
        row = range(first, first + count)
        if all(reserve(port) for port in row):
            return first
        # (Those that were reserved stay so; there are enough.)
    raise Failure('no free port')


def reserve(port):
    """Whether the port is free; then it is this process's."""
    if port in _reservations:
        return False
    lock = open(os.path.join(_LOCKS, str(port)), 'w')
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(('127.0.0.1', port))
    except OSError:
        lock.close()
        return False
    _reservations[port] = lock
    return True


def give_back(ports):
    for port in ports:
        lock = _reservations.pop(port, None)
        if lock:
            lock.close()


def wait_for(what, condition, timeout=None, pause=0.01):
    """What `condition` gives as soon as that is true. `what` may be a function that says more."""
    deadline = time.monotonic() + (PATIENCE if timeout is None else timeout)
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failure('waited in vain for ' + (what() if callable(what) else what))
        time.sleep(pause)


def usage(folder):
    """Bytes on disk below it."""
    total = 0
    for base, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.stat(os.path.join(base, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def is_witness(pid):
    """Whether the process is a running zrsd's witness."""
    try:
        with open(f'/proc/{pid}/cmdline', 'rb') as f:
            return f.read().split(b'\0')[1:2] == [b'witness']
    except OSError:
        return False


def http_get(port, path, timeout=3, method='GET'):
    """-> (status, body), or (None, reason)"""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=timeout)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode('utf-8', 'replace')
    except (OSError, http.client.HTTPException) as e:
        return None, repr(e)
    finally:
        connection.close()


_libc = ctypes.CDLL(None)


def _begin_afresh():
    # A test process that is killed leaves no server behind. (The kernel means the thread: servers are started by the
    # main one.)
    _libc.prctl(1, signal.SIGKILL)
    # A shell has what it starts in the background ignore SIGINT, and so all that is started there.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Process:
    """One server process, whichever server it is."""

    log = None
    process = None
    is_paused = False

    def command(self):
        raise NotImplementedError

    def start(self):
        assert self.process is None, 'it is running'
        assert threading.current_thread() is threading.main_thread(), 'the server would die with this thread'
        with open(self.log, 'ab') as log:
            log.write(b'--- starts: %s\n' % ' '.join(self.command()).encode())
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_begin_afresh,
                env=dict(os.environ, RUST_BACKTRACE='1'))
        return self

    @property
    def pid(self):
        return self.process.pid

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def check(self):
        """An error, if the process has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            raise Failure(f'{self} ended by itself with status {self.process.returncode}')

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """kill -9; the data stays"""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        self.is_paused = False

    def pause(self):
        self.is_paused = True
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)
        self.is_paused = False

    def wait_end(self, timeout=None):
        """-> exit status"""
        try:
            status = self.process.wait(PATIENCE if timeout is None else timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f'{self} did not end') from None
        self.process = None
        return status

    def terminate(self, timeout=None):
        """SIGTERM, and -> exit status"""
        self.signal(signal.SIGTERM)
        return self.wait_end(timeout)

    def rss(self):
        """Resident memory in bytes."""
        with open(f'/proc/{self.pid}/status') as f:
            return int(re.search(r'VmRSS:\s+(\d+) kB', f.read()).group(1)) * 1024

    def cpu(self):
        """Seconds of processor time so far."""
        with open(f'/proc/{self.pid}/stat') as f:
            fields = f.read().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def log_text(self):
        try:
            with open(self.log, 'rb') as f:
                return f.read().decode('utf-8', 'replace')
        except OSError:
            return ''


class Node(Process):
    """A node of a cluster of zrsd."""

    def __init__(self, cluster, number):
        self.cluster = cluster
        self.number = number
        self.port = free_port()
        self.http = free_port()
        self.data = os.path.join(cluster.folder, f'node{number}')
        self.log = os.path.join(cluster.folder, f'node{number}.log')
        self.options = []
        self.socket = None  # of a node that is alone: the path of the unix socket that it listens at

    def __str__(self):
        return f'node {self.number}'

    @property
    def address(self):
        return self.socket or ('127.0.0.1', self.port)

    def command(self):
        command = [os.path.join(binaries(), 'zrsd'), '--node', str(self.number), '--data', self.data,
                   '--http', f'127.0.0.1:{self.http}']
        if len(self.cluster.nodes) > 1:
            peers = ','.join(f'{n.number}=127.0.0.1:{n.port}' for n in self.cluster.nodes)
            command += ['--peers', peers]
        else:
            command += ['--listen', self.socket or f'127.0.0.1:{self.port}']
        return [*command, *self.cluster.options, *self.options]

    def witness(self):
        """The id of the process that tells the others when this one ends; None if there is none."""
        started = []
        for task in os.listdir(f'/proc/{self.pid}/task'):
            with contextlib.suppress(OSError), open(f'/proc/{self.pid}/task/{task}/children') as f:
                started += f.read().split()
        return next((int(child) for child in started if is_witness(child)), None)

    def lose_power(self):
        """Ends the process and all that it has started: nobody is told."""
        witness = self.witness()
        if witness is not None:
            os.kill(witness, signal.SIGKILL)
        self.kill()

    def ask(self, path):
        # (A node on a busy machine answers late. Only one that stands still does not answer at all.)
        return http_get(self.http, path, 3 if self.is_paused else PATIENCE)

    def get(self, path):
        """-> HTTP status, or None if nobody answers"""
        return self.ask(path)[0]

    def is_primary(self):
        return self.is_running() and self.get('/primary') == 200

    def is_ready(self):
        return self.is_running() and self.get('/readyz') == 200

    def status(self):
        """The JSON of /status, or {} if nobody answers."""
        status, body = self.ask('/status')
        return json.loads(body) if status == 200 else {}

    def metrics(self):
        """Prometheus' text as {name or name{labels}: number}."""
        status, body = self.ask('/metrics')
        if status != 200:
            raise Failure(f'/metrics of {self}: {status} {body}')
        found = {}
        for line in body.splitlines():
            if line and not line.startswith('#'):
                name, number = line.rsplit(' ', 1)
                found[name] = float(number)
        return found

    def metric(self, name):
        """The sum over all labels of a metric."""
        return sum(number for key, number in self.metrics().items() if key.partition('{')[0] == name)


class Cluster:
    """`size` nodes that make one cluster; started when the block is entered."""

    def __init__(self, size=3, options=(), folder=None, start=True):
        self.options = list(options)
        self.folder = folder or tempfile.mkdtemp(prefix='zrs-test-')
        self.nodes = []
        self.nodes += [Node(self, i + 1) for i in range(size)]
        self._start = start

    def __enter__(self):
        try:
            if self._start:
                self.start()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, error, trace):
        ended = None
        try:
            self.check()
        except Failure as e:
            ended = e
        self.close(keep=kind is not None or ended is not None)
        if ended is None:
            return
        if kind is None:
            raise ended
        print(ended, file=sys.stderr)

    def check(self):
        """An error, if nodes have ended by themselves. It is raised once: then they may be started again."""
        ended = []
        for node in self.nodes:
            try:
                node.check()
            except Failure as e:
                ended.append(str(e))
                node.process = None
        if ended:
            raise Failure('; '.join(ended))

    def start(self):
        for node in self.nodes:
            if node.process is None:
                node.start()
        self.wait_primary()
        return self

    def close(self, keep=False):
        """Ends everything at once (what ends well is tested where it is meant)."""
        for node in self.nodes:
            node.kill()
            give_back([node.port, node.http])
        if keep:
            self.print_logs()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def print_logs(self, lines=40):
        for node in self.nodes:
            text = node.log_text().splitlines()
            print(f'--- {node}, the last of {len(text)} lines of {node.log}', file=sys.stderr)
            print('\n'.join(text[-lines:]), file=sys.stderr)
        sys.stderr.flush()

    @property
    def addresses(self):
        return [node.address for node in self.nodes]

    @property
    def running(self):
        return [node for node in self.nodes if node.is_running()]

    def primary(self):
        """The primary of the moment, or None."""
        for node in self.nodes:
            if node.is_primary():
                return node
        return None

    def wait_primary(self, timeout=None, other_than=None):
        def look():
            for node in self.nodes:
                node.check()
            found = self.primary()
            return found if found is not other_than else None
        return wait_for(lambda: f'a primary: {self.situation()}', look, timeout)

    def wait_ready(self, nodes=None, timeout=None):
        """Until the nodes know a primary and have caught up."""
        for node in nodes or self.running:
            wait_for(lambda: f'{node} to be ready: {self.situation()}', node.is_ready, timeout)

    def wait_same(self, timeout=None):
        """Until all running nodes have applied the same, and -> that index."""
        def same():
            indexes = {node.status().get('applied') for node in self.running}
            return indexes if len(indexes) == 1 and None not in indexes else None
        return wait_for(lambda: f'all to have applied the same: {self.situation()}', same, timeout).pop()

    def secondaries(self):
        """All others that run, once there is a primary: without one, each would count."""
        primary = self.wait_primary()
        return [node for node in self.running if node is not primary]

    def situation(self):
        """What each node says of itself, in short."""
        def said(node):
            if not node.is_running():
                return 'down'
            return {k: v for k, v in node.status().items() if k not in ('storages', 'members', 'version', 'cluster')}
        return '; '.join(f'{node}: {said(node)}' for node in self.nodes)

    def kill(self):
        """kill -9 of all nodes, as near to one moment as can be."""
        running = self.running
        for node in running:
            node.signal(signal.SIGKILL)
        for node in running:
            node.kill()


class StockServer(Process):
    """A stock ZEO server over a FileStorage, with the conflicts given to the clients to resolve, as zrsd does."""

    def __init__(self, msgpack=False, transaction_timeout=None, folder=None):
        self.folder = folder or tempfile.mkdtemp(prefix='zrs-stock-')
        self.port = free_port()
        self.log = os.path.join(self.folder, 'zeo.log')
        self.configuration = os.path.join(self.folder, 'zeo.conf')
        timeout = f'transaction-timeout {int(transaction_timeout)}' if transaction_timeout else ''
        with open(self.configuration, 'w') as f:
            f.write(f'''
<zeo>
  address 127.0.0.1:{self.port}
  client-conflict-resolution true
  msgpack {'true' if msgpack else 'false'}
  {timeout}
</zeo>
<filestorage 1>
  path {self.folder}/Data.fs
  blob-dir {self.folder}/blobs
</filestorage>
<eventlog>
  level info
  <logfile>
    path STDOUT
  </logfile>
</eventlog>
''')

    def __str__(self):
        return 'the stock ZEO server'

    def command(self):
        return [os.path.join(os.path.dirname(sys.executable), 'runzeo'), '-C', self.configuration]

    def start(self):
        before = self.log_text().count('listening on')
        super().start()

        def listens():
            self.check()
            return self.log_text().count('listening on') > before
        wait_for('the stock server to listen', listens)
        return self

    @property
    def addresses(self):
        return [('127.0.0.1', self.port)]

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, error, trace):
        self.close(keep=kind is not None)

    def close(self, keep=False):
        self.kill()
        give_back([self.port])
        if keep:
            print(f'--- {self}: {self.log}\n' + '\n'.join(self.log_text().splitlines()[-40:]), file=sys.stderr)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def closing(*things):
    """Closes them all in the end, whatever each may raise."""
    try:
        yield things[0] if len(things) == 1 else things
    finally:
        for thing in things:
            with contextlib.suppress(Exception):
                thing.close()
