"""How fast a Data.fs gets into a data folder, and how fast by copyTransactionsFrom."""
import os
import subprocess
import tempfile
import time

import ZEO
from ZODB.blob import copyTransactionsFromTo
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError

from zrs_cluster import Cluster, StockServer, binaries


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
