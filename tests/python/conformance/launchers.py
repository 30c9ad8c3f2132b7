"""Start and stop the system under test (SUT) as separate OS processes.

``start(conf_text, keep)`` gets the very configuration text an upstream test
wrote for the Python server and starts the SUT with the same meaning.
It returns ``(address, stop)`` like ``ZEO._forker.start_zeo_server``.
"""
import contextlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import zconf

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from zrs_cluster import Failure, binaries, free_port, http_get

START_TIMEOUT = float(os.environ.get('CONFORMANCE_START_TIMEOUT', 33))
STOP_TIMEOUT = float(os.environ.get('CONFORMANCE_STOP_TIMEOUT', 10))

# Storage section types which mean "a durable storage at a path".
DURABLE = ('filestorage',)
# Wrappers which do not change what the server shows on the wire.
TRANSPARENT = ('blobstorage', 'loaddelayed_storage')
EPHEMERAL = ('mappingstorage',)
# A stock server which is a client of the SUT.
FAN_OUT = 'zeoclient'

counter = itertools.count()


class SUTError(Exception):
    """The SUT can't be started (or can't serve such a configuration)."""


class Unavailable(SUTError):
    """The SUT isn't there at all (no binary)."""


def parse_address(text):
    """-> (host, port) or a path (unix domain socket)"""
    text = text.strip()
    if '/' in text:
        return text
    host, colon, port = text.rpartition(':')
    if not colon:
        if text.isdigit():
            return '127.0.0.1', int(text)
        return text, 0
    return host.strip() or '127.0.0.1', int(port)


class Storage:
    """What a storage section asks for."""

    def __init__(self, section):
        self.name = section.name or '1'
        self.type = section.type
        self.path = None
        self.blob_dirs = []
        self.read_only = self.create = False
        self.pack_gc = True
        self.foreign = []   # section types only the Python server has
        for s in itertools.chain([section], section.walk()):
            if s.type in DURABLE:
                self.path = s.get('path')
                self.read_only = zconf.boolean(s.get('read-only'))
                self.create = zconf.boolean(s.get('create'))
                self.pack_gc = zconf.boolean(s.get('pack-gc'), True)
            elif s.type not in TRANSPARENT + EPHEMERAL:
                self.foreign.append(s.type)
            if s.get('blob-dir'):
                self.blob_dirs.append(s.get('blob-dir'))


class Request:
    """The meaning of a server configuration text."""

    def __init__(self, text):
        root = zconf.parse(text)
        zeo = root.find('zeo')
        self.text = text
        self.address = parse_address(zeo.get('address', '127.0.0.1:0'))
        self.read_only = zconf.boolean(zeo.get('read-only'))
        self.msgpack = zconf.boolean(
            zeo.get('msgpack'), bool(os.environ.get('ZEO_MSGPACK')))
        self.transaction_timeout = zeo.get('transaction-timeout')
        self.ssl = zeo.find('ssl')
        self.log_file = None
        log = root.find('eventlog')
        if log is not None:
            logfile = log.find('logfile')
            if logfile is not None:
                self.log_file = logfile.get('path')
        self.storages = [Storage(s) for s in root.sections
                         if s.type not in ('zeo', 'eventlog', 'runner')]


class Launcher:

    name = None

    def problems(self):
        """What went wrong with servers of a test, for which it fails."""
        return []

    def check(self):
        """Raise Unavailable if the SUT can't be run here."""

    def start(self, text, keep):
        return self.launch(Request(text), keep)

    # helpers

    def spawn(self, args, log, env=None):
        # Same process group as the test: when the test is killed,
        # its servers die with it.
        with open(log, 'ab') as out:
            return subprocess.Popen(
                args, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env=env)

    def wait_ready(self, procs, ready, log):
        deadline = time.monotonic() + START_TIMEOUT
        pause = 0.005
        while True:
            is_ready = ready()
            for proc in procs:
                # (Also when ready: what answered may be someone else.)
                if proc.poll() is not None:
                    raise SUTError(
                        f'server ended with status {proc.returncode} while '
                        f'starting:\n{tail(log)}')
            if is_ready:
                break
            if time.monotonic() > deadline:
                for proc in procs:
                    terminate(proc)
                raise SUTError(
                    f'server not ready after {START_TIMEOUT} s:\n{tail(log)}')
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)


def terminate(proc, timeout=STOP_TIMEOUT):
    """-> exit status, or None if it had to be killed"""
    if proc.poll() is None:
        proc.terminate()
        try:
            proc.wait(timeout)
        except subprocess.TimeoutExpired:
            print(f'WARNING server {proc.pid} ignored SIGTERM for {timeout} s',
                  file=sys.stderr)
            proc.kill()
            proc.wait()
            return None
    return proc.returncode


def tail(path, size=4000):
    try:
        with open(path, 'rb') as f:
            f.seek(0, 2)
            f.seek(max(0, f.tell() - size))
            return f.read().decode('utf-8', 'replace')
    except OSError:
        return ''


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.remove(path)


def shown(address):
    """As the servers' options want it: host:port, or a path"""
    return address if isinstance(address, str) else '{}:{}'.format(*address)


def accepts(address):
    family = socket.AF_UNIX if isinstance(address, str) else (
        socket.AF_INET6 if ':' in address[0] else socket.AF_INET)
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(5)
        try:
            s.connect(address)
        except OSError:
            return False
    return True


class RunZEO(Launcher):
    """The stock server, through its command line script."""

    name = 'runzeo'

    def command(self):
        script = os.path.join(os.path.dirname(sys.executable), 'runzeo')
        if os.path.exists(script):
            return [script]
        return [sys.executable, '-m', 'ZEO.runzeo']

    def check(self):
        import ZEO.runzeo  # noqa: F401

    def launch(self, request, keep):
        address = request.address
        if isinstance(address, tuple) and not address[1]:
            address = address[0], free_port()
        text = self.rewrite(request.text, address)
        fd, conf = tempfile.mkstemp('.conf', 'runzeo-', dir=os.getcwd())
        with os.fdopen(fd, 'w') as f:
            f.write(text)
        out = conf[:-5] + '.out'
        log = request.log_file or out
        start = os.path.getsize(log) if os.path.exists(log) else 0

        def ready():
            # Its own word: what accepts there may be someone else.
            if not os.path.exists(log):
                return False
            with open(log, 'rb') as f:
                f.seek(start)
                return b'listening on' in f.read()

        proc = self.spawn(self.command() + ['-C', conf], out)
        try:
            self.wait_ready([proc], ready, out)
        except BaseException:
            terminate(proc)
            raise
        cwd = os.getcwd()

        def stop():
            terminate(proc)
            remove(conf)
            if not keep:
                for storage in request.storages:
                    self.cleanup(storage, cwd)

        return address, stop

    def rewrite(self, text, address):
        """Fix the address, have conflicts resolved by clients.

        (Not by the clients of clients: the one who talks to the SUT does.)
        """
        resolved_by_clients = f'<{FAN_OUT}' not in text
        text = self.unwrap(text)
        out = []
        inside = False
        for line in text.splitlines():
            word = line.strip().split(' ')[0].lower()
            if word == '<zeo>':
                inside = True
                out.append(line)
                out.append(f'  address {shown(address)}')
                out.append('  client-conflict-resolution %s' % (
                    'true' if resolved_by_clients else 'false'))
            elif word == '</zeo>':
                inside = False
                out.append(line)
            elif inside and word in ('address', 'client-conflict-resolution'):
                continue
            else:
                out.append(line)
        return '\n'.join(out) + '\n'

    def unwrap(self, text):
        """<blobstorage> around <filestorage> -> <filestorage> with blob-dir

        The stock server tells a storage not to resolve conflicts by setting
        an attribute of it. On a <blobstorage> that doesn't reach the file
        storage inside, so conflicts would be resolved in the server.
        """
        m = re.search(r'(?ms)^\s*<blobstorage.*?</blobstorage>', text)
        if m is None:
            return text
        [outer] = zconf.parse(m.group(0)).sections
        if [s.type for s in outer.sections] != ['filestorage']:
            return text
        [inner] = outer.sections
        name = outer.name or '1'
        lines = [f'<filestorage {name}>']
        lines += [f'  {key} {value}' for key, value in
                  dict(inner.keys, **outer.keys).items()]
        lines += ['</filestorage>']
        return self.unwrap(
            text[:m.start()] + '\n' + '\n'.join(lines) + text[m.end():])

    def cleanup(self, storage, cwd):
        if storage.path:
            path = os.path.join(cwd, storage.path)
            for ext in '', '.old', '.tmp', '.lock', '.index', '.pack':
                remove(path + ext)
            # (FileStorage.cleanup() leaves the blobs alone as well.)


class Zrsd(Launcher):
    """One zrsd node."""

    name = 'zrsd'
    nodes = 1

    def __init__(self):
        self.clusters = {}    # data dir -> node ports
        self.serving = []     # processes which nobody has asked to end
        self.wrong = []       # what went wrong with some, in words

    def problems(self):
        """What became of servers which must not end, or not like that.

        For the end of a test: an exception of ``stop`` might be swallowed.
        """
        for proc in self.serving:
            self.still_there(proc)
        return self.wrong

    def still_there(self, proc):
        if proc.poll() is None:
            return True
        self.wrong.append(f'server {proc.pid} ended by itself '
                          f'with status {proc.returncode}')
        return False

    # binaries

    def binary(self, name='zrsd'):
        return os.path.join(self.folder, name)

    def check(self):
        # (Now: tests change the current directory.)
        try:
            self.folder = binaries()
        except Failure as exc:
            raise Unavailable(str(exc)) from None
        if not os.access(self.binary(), os.X_OK):
            raise Unavailable(f'{self.binary()} not found or not executable')

    def options(self, request):
        args = []
        names = [s.name for s in request.storages]
        if names != ['1']:
            for name in names:
                args += ['--storage', name]
        for storage in request.storages:
            if storage.foreign:
                raise SUTError('no such storage outside the Python server: '
                               + ', '.join(storage.foreign))
        if request.read_only or any(s.read_only for s in request.storages):
            args.append('--read-only')
        if request.transaction_timeout:
            args += ['--transaction-timeout', request.transaction_timeout]
        if request.msgpack:
            args.append('--msgpack')
        if request.ssl is not None:
            if request.ssl.get('password-function'):
                raise SUTError('password-function is a Python function')
            for option, key in (('--tls-cert', 'certificate'),
                                ('--tls-key', 'key'),
                                ('--tls-client-ca', 'authenticate')):
                if request.ssl.get(key):
                    args += [option, request.ssl.get(key)]
        if request.log_file:
            args += ['--log-file', os.path.abspath(request.log_file)]
        if not all(s.pack_gc for s in request.storages):
            args += ['--pack-gc', 'false']
        return args

    # data

    def data_dir(self, request):
        """-> data dir, whether it outlives the server"""
        paths = [s.path for s in request.storages if s.path]
        if not paths:
            return tempfile.mkdtemp('.zrsd', 'mapping-', os.getcwd()), False
        data = os.path.abspath(paths[0]) + '.zrsd'
        if any(s.create for s in request.storages):
            remove(data)
        return data, True

    def signature(self, path):
        st = os.stat(path)
        return [st.st_mtime_ns, st.st_size]

    def import_fs(self, request, data):
        """Some tests put a Data.fs there (or put an old one back)."""
        path = request.storages[0].path
        if not path or not os.path.exists(path):
            return
        mark = data + '.imported'
        signature = self.signature(path)
        with contextlib.suppress(OSError, ValueError):
            with open(mark) as f:
                if json.load(f) == signature and os.path.isdir(data):
                    return
        remove(data)
        for d in self.node_dirs(data):
            r = subprocess.run(
                [self.binary('zrsctl'), 'import', path, '--data', d],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT)
            if r.returncode:
                raise SUTError('zrsctl import failed: '
                               + r.stdout.decode('utf-8', 'replace'))
        with open(mark, 'w') as f:
            json.dump(signature, f)

    def node_dirs(self, data):
        return [data]

    # processes

    def launch(self, request, keep):
        if any(s.type == FAN_OUT for s in request.storages):
            return RunZEO().launch(request, keep)
        options = self.options(request)
        data, durable = self.data_dir(request)
        if durable:
            self.import_fs(request, data)
        nodes = self.plan(data, request.address)
        log = os.path.join(os.getcwd(), f'{self.name}-{next(counter)}.out')
        env = dict(os.environ, RUST_BACKTRACE='1')
        procs = []

        def stop():
            # (Some tests remove the servers' folder before they stop them:
            # a server that needs it meanwhile ends with an error.)
            robbed = not os.path.isdir(data)
            asked = [proc for proc in procs
                     if robbed or self.still_there(proc)]
            for proc in asked:
                proc.terminate()
            for proc in asked:
                status = terminate(proc)
                if status is None:
                    self.wrong.append(
                        f'server {proc.pid} ignored SIGTERM')
                elif status and os.path.isdir(data):
                    self.wrong.append(f'server {proc.pid} ended with status '
                                      f'{status} after SIGTERM; the servers '
                                      f'said at last:\n{output.read()[-4000:]}')
            for proc in procs:
                self.serving.remove(proc)
            if not (keep and durable):
                remove(data)
                remove(data + '.imported')
                self.clusters.pop(data, None)

        # (The test may remove its folder before its servers end.)
        with open(log, 'a'):
            output = open(log, errors='replace')
        try:
            for args in self.commands(nodes, data):
                procs.append(self.spawn(
                    [self.binary()] + args + options, log, env))
            primary = []

            def ready():
                for node in nodes:
                    status, _ = http_get(
                        node['http'], '/readyz' if '--read-only' in options
                        else '/primary')
                    if status == 200:
                        primary.append(node)
                        return accepts(node['address'])
                return False

            self.wait_ready(procs, ready, log)
        except BaseException:
            for proc in procs:
                terminate(proc, 2)
            raise
        self.serving += procs
        return self.address(request, nodes, primary[-1]), stop

    def plan(self, data, address):
        if isinstance(address, tuple) and not address[1]:
            address = address[0], free_port()
        return [dict(id=1, address=address, http=free_port())]

    def commands(self, nodes, data):
        [node] = nodes
        yield ['--node', '1', '--data', data,
               '--listen', shown(node['address']),
               '--http', '127.0.0.1:{http}'.format(**node)]

    def address(self, request, nodes, primary):
        return primary['address']


class Zrsd3(Zrsd):
    """Three zrsd nodes; clients get all three addresses.

    The tests deal with one address per server. They get the address they
    asked for, or else the primary's; ``expand`` (see shim) replaces it by the
    list of the three nodes whenever a client connects.
    """

    name = 'zrsd3'
    nodes = 3

    def __init__(self):
        super().__init__()
        self.expansions = {}    # (host, port) -> [(host, port), ...]

    def node_dirs(self, data):
        return [os.path.join(data, f'node{i}') for i in (1, 2, 3)]

    def plan(self, data, address):
        if not isinstance(address, tuple):
            raise SUTError('nodes reach each other over TCP')
        host, requested = address
        ports = self.clusters.get(data) if os.path.isdir(data) else None
        if ports is None:
            ports = [requested or free_port()]
            while len(ports) < self.nodes:
                port = free_port()
                if port not in ports:
                    ports.append(port)
            self.clusters[data] = ports
        return [dict(id=i + 1, address=(host, port), http=free_port())
                for i, port in enumerate(ports)]

    def commands(self, nodes, data):
        peers = ','.join(
            '{}={}'.format(n['id'], shown(n['address'])) for n in nodes)
        for node, d in zip(nodes, self.node_dirs(data), strict=True):
            os.makedirs(d, exist_ok=True)
            yield ['--node', str(node['id']), '--peers', peers, '--data', d,
                   '--http', '127.0.0.1:{http}'.format(**node)]

    def address(self, request, nodes, primary):
        members = [n['address'] for n in nodes]
        address = primary['address']
        if request.address[1]:
            address = request.address
        for a in members + [address]:
            self.expansions[a] = members
        return address

    def expand(self, addrs):
        result = []
        for addr in addrs:
            key = addr
            if isinstance(addr, tuple):
                key = addr[0] or '127.0.0.1', addr[1]
                if key[0] == 'localhost':
                    key = '127.0.0.1', key[1]
            for a in self.expansions.get(key, [addr]):
                if a not in result:
                    result.append(a)
        return result


LAUNCHERS = {c.name: c for c in (RunZEO, Zrsd, Zrsd3)}
