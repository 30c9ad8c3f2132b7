"""An ordinary ZEO client that counts, for the tour in the README: tests/python/venv etc/tour.py [HOST:PORT ...]

It does what Zope does for a request: a transaction, and once more with the data of then when that failed.
"""
import sys
import time

import transaction
import ZEO
from ZODB.POSException import POSError

named = sys.argv[1:] or ['127.0.0.1:8100', '127.0.0.1:8101', '127.0.0.1:8102']
addresses = [(host, int(port)) for host, port in (address.rsplit(':', 1) for address in named)]

db = ZEO.DB(addresses, wait_timeout=30)
connection = db.open()
root = connection.root()
print('connected; the counter stands at', root.get('counter', 0), flush=True)


def server():
    """The address that the client is connected to. (Most changes are too quick to make a transaction fail.)"""
    return db.storage._server.client.get_peername()


last = server()
while True:
    began = time.time()
    failures = 0
    tried = None
    while True:
        try:
            connection.sync()
            counter = root.get('counter', 0)
            if counter == tried:
                # The connection broke between the commit and its answer.
                print(f'{tried:6}   was committed; only the answer was lost', flush=True)
            tried = root['counter'] = counter + 1
            transaction.commit()
            break
        except (POSError, transaction.interfaces.TransientError) as e:
            transaction.abort()
            if not failures:
                print('      failed, trying again:', type(e).__name__, flush=True)
            failures += 1
            time.sleep(0.05)
    took = time.time() - began
    before, last = last, server()
    print(f'{tried:6}   {took * 1000:8.1f} ms' + ('   <- a new primary' if last != before else ''), flush=True)
    time.sleep(max(0.0, 0.2 - took))
