"""What stands in for the hosts and the folders that a snippet names, so that it can be run as it is written."""
import os
import re
import shlex
import traceback

from zrs_cluster import Failure, Process, binaries, free_port

ADDRESS = re.compile(r'\b(db[1-9]|[abc]|127\.0\.0\.1|0\.0\.0\.0):(8\d\d\d)\b')
FOLDER = re.compile(r'(?<![\w./$~-])/(etc|run|srv|usr|var)/')


class Site:
    """Ports of this machine for `a:8100`, `db1:8100` or `127.0.0.1:8180`, and places below a folder for `/etc/zrs`.

    The documents' ports tell what an address is: 8100 and following are of clients and peers, 8180 of HTTP, 8200 of
    readers. Which node it is the host says, or the port where all are on one host.
    """

    def __init__(self, folder, clients, http=(), readers=()):
        self.folder = folder
        self.ports = {810: clients, 818: http, 820: readers}

    def port(self, found):
        host, port = found[1], int(found[2])
        named = {'a': 0, 'b': 1, 'c': 2}.get(host)
        number = int(host[2:]) - 1 if host.startswith('db') else port % 10 if named is None else named
        return f'127.0.0.1:{self.ports[port // 10][number]}'

    def adapt(self, text):
        """The text with what stands in; the folders of all paths in it are there afterwards."""
        text = FOLDER.sub(lambda found: f'{self.folder}/{found[1]}/', ADDRESS.sub(self.port, text))
        for path in re.findall(re.escape(self.folder) + r'/[\w./-]+', text):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        return text


class Host(Site):
    """A machine of a cluster of the documents, with node `number`: each address that is not a peer's is its own."""

    def __init__(self, folder, number, peers):
        super().__init__(folder, peers)
        self.number = number
        self.http, self.readers = free_port(), free_port()

    def port(self, found):
        if found[1] == '0.0.0.0' and found[2] == '8100':
            return f'127.0.0.1:{self.ports[810][self.number - 1]}'
        own = {'8180': self.http, '8200': self.readers}.get(found[2])
        return f'127.0.0.1:{own}' if own else super().port(found)


class Daemon(Process):
    """zrsd with a command line of a document."""

    def __init__(self, arguments, log):
        self.arguments = arguments
        self.log = log

    def __str__(self):
        return 'zrsd ' + shlex.join(self.arguments)

    def command(self):
        return [os.path.join(binaries(), 'zrsd'), *self.arguments]


def value(arguments, flag):
    """The word behind a flag, or None."""
    return arguments[arguments.index(flag) + 1] if flag in arguments else None


def for_each(things, do):
    """Does it with each of them, and raises what went wrong with any, by their names. At least one has to be there."""
    things = list(things)
    failed = []
    for thing in things:
        try:
            do(thing)
        except Exception:
            failed.append(f'{thing}:\n{getattr(thing, "text", "")}\n{traceback.format_exc()}')
    if failed or not things:
        raise Failure('\n'.join(failed) or 'there is nothing to run')
    return len(things)
