#!/usr/bin/env python3
"""Clients of the versions that people run, each against a cluster of three; the last line says `N passed, N failed`.

    tests/python/versions.py [VERSION]...       5.2.3, 5.4.1, 6.0, 6.2 (what the other tests use)

Each version of ZEO has a virtual environment of its own, with the ZODB of its time (versions/zeo-VERSION.txt), and
works through the same list with both encodings of the wire. A version that can't be installed has failed, and pip says
why.
"""
import os
import subprocess
import sys
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
VERSIONS = {'5.2.3': 'versions/zeo-5.2.3.txt', '5.4.1': 'versions/zeo-5.4.1.txt', '6.0': 'versions/zeo-6.0.txt',
            '6.2': 'requirements.txt'}
TIMEOUT = 180  # seconds for one version with one encoding
PATIENCE = 20  # seconds, for what takes well under one on an idle machine


# In the project's own Python: each version with each encoding.

def main(versions):
    unknown = [version for version in versions if version not in VERSIONS]
    if unknown:
        sys.exit(f'error: no such version: {", ".join(unknown)}; there are {", ".join(VERSIONS)}')
    passed = failed = 0
    for version in versions or VERSIONS:
        for encoding in 'Z5', 'M5':
            lines = run(version, encoding)
            passed += len([line for line in lines if line.startswith('ok ')])
            failed += len([line for line in lines if line.startswith('FAILED ')])
    print(f'{passed} passed, {failed} failed')
    return 1 if failed or not passed else 0


def run(version, encoding):
    """-> the lines it printed"""
    command = [os.path.join(HERE, 'venv'), '-r', os.path.join(HERE, VERSIONS[version]), os.path.abspath(__file__)]
    environment = dict(os.environ, ZRS_CLIENT=version, ZRS_ENCODING=encoding)
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT)
        output, status = done.stdout, done.returncode
    except subprocess.TimeoutExpired as e:
        output, status = (e.stdout or b'').decode('utf-8', 'replace'), 'none: it took too long'
    lines = [line for line in output.splitlines() if line.startswith(('ok ', 'FAILED '))]
    if status != 0 and not any(line.startswith('FAILED ') for line in lines):
        lines.append(f'FAILED ZEO {version} {encoding}: ended with status {status}')
        output += lines[-1] + '\n'
    print(output if status != 0 else '\n'.join(lines), flush=True)
    return lines


# In the Python of one version: the list.

class Smoke:

    def __init__(self, cluster):
        import ZODB

        import zrs_cluster
        self.cluster = cluster
        self.wait_for = zrs_cluster.wait_for
        self.folder = os.path.join(cluster.folder, 'clients')
        os.makedirs(self.folder)
        self.things = []
        self.first = ZODB.DB(self.client('first'))
        self.second = ZODB.DB(self.client('second'))
        self.things += [self.first, self.second]

    def client(self, name):
        import ZEO
        return ZEO.client(self.cluster.addresses, wait_timeout=PATIENCE, blob_dir=os.path.join(self.folder, name))

    def close(self):
        for thing in self.things:
            try:
                thing.close()
            except Exception:
                traceback.print_exc()

    def open(self, db):
        import transaction
        return db.open(transaction.TransactionManager())

    def set(self, name, value):
        with self.first.transaction() as connection:
            connection.root()[name] = value

    def look(self, at):
        """What the second client finds; nothing, while it looks for the primary."""
        from transaction.interfaces import TransientError
        from ZEO.Exceptions import ClientDisconnected
        try:
            with self.second.transaction() as connection:
                return at(connection.root())
        except (TransientError, ClientDisconnected):
            return None

    def seen(self, name, attribute='value'):
        """What the second client sees of it, as soon as it sees it."""
        def look(root):
            thing = root.get(name)
            return None if thing is None else (getattr(thing, attribute),)
        return self.wait_for(f'{name} in the other client', lambda: self.look(look), PATIENCE)[0]

    def sees(self, name, value):
        def look(root):
            thing = root.get(name)
            return thing is not None and thing.value == value
        self.wait_for(f'{name} to be {value} in the other client', lambda: self.look(look), PATIENCE)

    # the list

    def connects_by_a_list_of_addresses(self):
        assert len(self.cluster.addresses) == 3
        for db in self.first, self.second:
            assert db.storage.is_connected()
            assert db.supportsUndo(), 'undo'
        spoken = self.first.storage._server.client.protocol.protocol_version
        assert spoken == os.environ['ZRS_ENCODING'].encode(), spoken

    def commits(self):
        from objects import Cell
        self.set('commits', Cell('one'))
        assert self.seen('commits') == 'one'
        with self.second.transaction() as connection:
            connection.root()['commits'].value = 'two'
        connection = self.open(self.first)
        self.wait_for('the change of the other', lambda: connection.sync() or connection.root()['commits'].value == 'two', PATIENCE)
        connection.close()

    def conflicts(self):
        from ZODB.POSException import ConflictError

        from objects import Cell
        self.set('conflicts', Cell(0))
        assert self.seen('conflicts') == 0
        one, two = self.open(self.first), self.open(self.second)
        one.root()['conflicts'].value = 1
        two.root()['conflicts'].value = 2
        one.transaction_manager.commit()
        try:
            two.transaction_manager.commit()
        except ConflictError:
            two.transaction_manager.abort()
        else:
            raise AssertionError('a lost update')
        self.sees('conflicts', 1)
        one.close()
        two.close()

    def resolves_conflicts(self):
        from objects import Counter
        self.set('resolved', Counter())
        self.seen('resolved')
        one, two = self.open(self.first), self.open(self.second)
        one.root()['resolved'].increment()
        two.root()['resolved'].increment(10)
        one.transaction_manager.commit()
        two.transaction_manager.commit()
        self.sees('resolved', 11)
        one.close()
        two.close()

    def many_at_once(self):
        """Two clients increment as fast as they can; nothing is lost."""
        import transaction

        from objects import Cell
        self.set('counted', Cell(0))
        self.seen('counted')
        errors = []

        def count(db):
            try:
                for _ in range(20):
                    manager = transaction.TransactionManager()
                    connection = db.open(manager)
                    try:
                        for attempt in manager.attempts(100):
                            with attempt:
                                connection.root()['counted'].value += 1
                    finally:
                        connection.close()
            except Exception as e:
                errors.append(e)
        threads = [threading.Thread(target=count, args=(db,)) for db in (self.first, self.second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors
        self.sees('counted', 40)

    def blobs_up_and_down(self):
        from ZODB.blob import Blob

        from objects import Cell
        for name, size in (('empty', 0), ('small', 10), ('large', 3_000_000)):
            data = os.urandom(size)
            self.set(name, Cell(Blob(data)))
            self.seen(name)
            with self.second.transaction() as connection:
                with connection.root()[name].value.open() as f:
                    assert f.read() == data, name

    def undoes(self):
        from objects import Cell
        self.set('undone', Cell('before'))
        with self.first.transaction() as connection:
            connection.root()['undone'].value = 'after'
        self.sees('undone', 'after')
        with self.first.transaction() as connection:
            # (DB.undo joins the transaction of the thread; this one is the connection's.)
            newest = self.first.undoLog(0, 1)[0]
            self.first.undo(newest['id'], connection.transaction_manager.get())
        self.sees('undone', 'before')

    def history_and_iterators(self):
        from objects import Cell
        self.set('old', Cell(0))
        for value in 1, 2, 3:
            with self.first.transaction() as connection:
                connection.root()['old'].value = value
                oid = connection.root()['old']._p_oid
        assert len(self.first.storage.history(oid, 100)) == 4
        written = [record.tid for txn in self.first.storage.iterator() for record in txn if record.oid == oid]
        assert len(written) == 4 and written == sorted(written), written

    def packs(self):
        from objects import Cell
        self.set('packed', Cell(0))
        for value in range(1, 6):
            with self.first.transaction() as connection:
                connection.root()['packed'].value = value
                oid = connection.root()['packed']._p_oid
        self.second.pack(time.time() + 1)
        assert len(self.first.storage.history(oid, 100)) == 1
        self.sees('packed', 5)

    def follows_the_primary(self):
        from transaction.interfaces import TransientError
        from ZEO.Exceptions import ClientDisconnected

        from objects import Cell
        self.set('followed', Cell(0))
        self.seen('followed')
        for value in 1, 2:
            killed = self.cluster.wait_primary()
            killed.kill()
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    with self.first.transaction() as connection:
                        connection.root()['followed'].value = value
                    break
                except (TransientError, ClientDisconnected):
                    assert time.monotonic() < deadline, 'no commit after the primary was killed'
                    time.sleep(0.05)
            self.sees('followed', value)
            killed.start()
            self.cluster.wait_ready()

    LIST = (connects_by_a_list_of_addresses, commits, conflicts, resolves_conflicts, many_at_once, blobs_up_and_down,
            undoes, history_and_iterators, packs, follows_the_primary)


def smoke():
    import importlib.metadata

    from zrs_cluster import Cluster
    versions = 'ZEO {}, ZODB {}, {}'.format(
        importlib.metadata.version('ZEO'), importlib.metadata.version('ZODB'), os.environ['ZRS_ENCODING'])
    import logging
    logging.basicConfig(level=logging.CRITICAL)
    options = ['--msgpack'] if os.environ['ZRS_ENCODING'] == 'M5' else []
    failed = 0
    with Cluster(3, options) as cluster:
        clients = Smoke(cluster)
        for step in Smoke.LIST:
            name = f'{versions}: {step.__name__.replace("_", " ")}'
            try:
                step(clients)
            except BaseException:
                failed += 1
                traceback.print_exc()
                sys.stderr.flush()
                print(f'FAILED {name}', flush=True)
            else:
                print(f'ok {name}', flush=True)
        clients.close()
    sys.stdout.flush()
    os._exit(1 if failed else 0)  # threads of clients may hang; nothing waits for them


if __name__ == '__main__':
    if os.environ.get('ZRS_CLIENT'):
        smoke()
    sys.exit(main(sys.argv[1:]))
