"""A limit to the memory of processes, by a control group (version 1 or 2), where this machine lets us make one."""
import os
import time

ROOT = '/sys/fs/cgroup'
VERSIONS = (('memory', 'memory.limit_in_bytes'), ('', 'memory.max'), ('unified', 'memory.max'))


class MemoryLimit:
    """At most `size` bytes for all processes that it holds: theirs, and what the system keeps of files for them."""

    def __init__(self, size):
        self.folder = None
        for below, limit in VERSIONS:
            folder = os.path.join(ROOT, below, f'zrs-test-{os.getpid()}')
            try:
                os.mkdir(folder)
            except OSError:
                continue
            try:
                with open(os.path.join(folder, limit), 'w') as f:
                    f.write(str(size))
            except OSError:
                os.rmdir(folder)
                continue
            self.folder = folder
            return

    def __bool__(self):
        return self.folder is not None

    def hold(self, pid):
        """From now on `pid` counts, and what it starts."""
        with open(os.path.join(self.folder, 'cgroup.procs'), 'w') as f:
            f.write(str(pid))

    def killed(self):
        """How many of its processes the system has killed, as they wanted more."""
        for name in ('memory.oom_control', 'memory.events'):
            try:
                with open(os.path.join(self.folder, name)) as f:
                    words = dict(line.split() for line in f)
            except OSError:
                continue
            if 'oom_kill' in words:
                return int(words['oom_kill'])
        raise OSError(f'{self.folder} does not say how many processes were killed')

    def remove(self):
        """Its processes must have ended, or they are held by the group above it from now on."""
        with open(os.path.join(self.folder, 'cgroup.procs')) as f:
            pids = f.read().split()
        for pid in pids:
            with open(os.path.join(os.path.dirname(self.folder), 'cgroup.procs'), 'w') as f:
                f.write(pid)
        for _ in range(50):
            try:
                return os.rmdir(self.folder)
            except OSError:
                time.sleep(.1)  # (the system takes a moment)
