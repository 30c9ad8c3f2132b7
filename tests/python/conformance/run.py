#!/usr/bin/env python3
"""Run the test suites of ZEO and ZODB against an external server process.

    run.py [--sut zrsd|zrsd3|runzeo]... [--proto Z5|M5|both] [--match REGEX]
           [--shard I/N|day/N] [--jobs N] [--timeout SECS] [--list]

Without --sut: one node (zrsd), then three (zrsd3). The last line says
`N passed, N failed`. Exit status: 0 = all applicable tests pass, 1 = some
fail (or none was selected), 2 = the system under test can't be run.

$ZRS_BIN is the folder of zrsd and zrsctl (else the target folder of cargo);
results and logs of failed tests go to --results, by default
~/.cache/zrs/conformance. Tests work in $CONFORMANCE_TMP, or in the system's
folder for temporary files. Nothing is written beside this file.
"""
import argparse
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.dirname(HERE))

from into_venv import into_venv

SUTS = 'zrsd', 'zrsd3', 'runzeo'
PROTOCOLS = 'Z5', 'M5'

# Tests which, by design, run for long (threads write for at least so and so
# many seconds, a client waits for its next try, ...): seconds on top of
# --timeout.
SLOW = [
    (re.compile(p), seconds) for p, seconds in (
        (r'.*\.checkConcurrent(Updates|LargeUpdates).*', 90),
        (r'.*test_race_.*', 60),
        (r'.*/client_has_newer_data_than_server', 30),
        (r'.*(zeo_blob_cache\.test|invalidations_while_connecting)', 60),
    )]


def results_folder():
    cache = (os.environ.get('XDG_CACHE_HOME')
             or os.path.expanduser('~/.cache'))
    return os.path.join(cache, 'zrs', 'conformance')


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--sut', action='append', choices=SUTS, metavar='SUT',
        help='what to test: {}; may be given more than once '
        '(default: zrsd and zrsd3)'.format(', '.join(SUTS)))
    add('--proto', default='both', choices=PROTOCOLS + ('both',))
    add('--match', metavar='REGEX',
        help='only tests whose name (Z5:... or M5:...) the regex is found in')
    add('--shard', metavar='I/N',
        help='only every Nth test; I is 1..N, or "day": another one each day')
    add('--jobs', type=int, default=2, help='tests at a time (default: 2)')
    add('--timeout', type=float, default=60,
        help='seconds per test (default: 60)')
    add('--results', metavar='DIR', default=results_folder(),
        help='where results (SUT.json) and logs go (default: %(default)s)')
    add('--list', action='store_true',
        help='print the tests (and the excluded ones), run nothing')
    add('--excluded', action='store_true',
        help='run what excluded.txt leaves out, too (for a closer look)')
    add('--verbose', '-v', action='store_true')
    add('--worker', metavar='FILE', help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.suts = args.sut or ['zrsd', 'zrsd3']
    if args.worker:
        del args.suts[:-1]
    args.results = os.path.abspath(args.results)
    args.shard = shard(parser, args.shard)
    return args


def shard(parser, text):
    if not text:
        return 1, 1
    m = re.fullmatch(r'(\d+|day)/(\d+)', text)
    if m and int(m.group(2)):
        count = int(m.group(2))
        if m.group(1) == 'day':
            return int(time.time() // 86400) % count + 1, count
        if 1 <= int(m.group(1)) <= count:
            return int(m.group(1)), count
    parser.error('--shard wants I/N with 1 <= I <= N, or day/N')


# One process per protocol (the suites look at the environment when imported)

def main():
    args = arguments()
    if args.worker:
        return worker(args)
    status, passed, failed = 0, 0, 0
    for sut in args.suts:
        result = run_sut(args, sut)
        status = max(status, result[0])
        passed += result[1]
        failed += result[2]
    if not args.list:
        print(f'{passed} passed, {failed} failed')
    return status


def run_sut(args, sut):
    """-> exit status, number of tests that passed, that failed"""
    import shim
    protocols = PROTOCOLS if args.proto == 'both' else (args.proto,)
    results = []
    problem = None
    start = time.time()
    for protocol in protocols:
        fd, path = tempfile.mkstemp('.json', 'conformance-')
        os.close(fd)
        try:
            argv = [sys.executable, os.path.abspath(__file__)] + sys.argv[1:]
            # The same shard, also if the day ends meanwhile.
            argv += ['--shard', '{}/{}'.format(*args.shard)]
            argv += ['--sut', sut, '--proto', protocol, '--worker', path]
            r = subprocess.run(argv, env=shim.environment(protocol))
            with open(path) as f:
                text = f.read()
        finally:
            os.remove(path)
        if args.list:
            if r.returncode:
                return r.returncode, 0, 0
            continue
        if not text:
            print(f'the {protocol} run ended with status {r.returncode} '
                  'and without results')
            return 2, 0, 1
        data = json.loads(text)
        results += data['tests']
        problem = problem or data['problem']
    if args.list:
        return 0, 0, 0
    return report(args, sut, results, problem, time.time() - start)


def report(args, sut, results, problem, seconds):
    applicable = [r for r in results if r['status'] != 'excluded']
    passed = [r for r in applicable if r['status'] == 'passed']
    failed = [r for r in applicable if r['status'] != 'passed']
    excluded = [r for r in results if r['status'] == 'excluded']
    path = os.path.join(args.results, sut + '.json')
    os.makedirs(args.results, exist_ok=True)
    with open(path, 'w') as f:
        json.dump(dict(
            sut=sut, proto=args.proto, match=args.match,
            shard='{}/{}'.format(*args.shard), seconds=round(seconds, 1),
            passed=len(passed), applicable=len(applicable),
            excluded=len(excluded), problem=problem,
            failing=[r['name'] for r in failed], tests=results,
        ), f, indent=1)
    for r in failed:
        if r['status'] != 'not run':
            print('FAILED {} ({})'.format(r['name'], r['status']))
    if problem:
        print('error: ' + problem)
    local = sum(1 for r in applicable if r['local'])
    print('results: %s; %.0f s; %d of the applicable tests are local ones' % (
        path, seconds, local))
    print('%s%s: passed %d of %d applicable (%d excluded)' % (
        sut, '' if args.shard[1] == 1 else ', shard {}/{}'.format(*args.shard),
        len(passed), len(applicable), len(excluded)))
    sys.stdout.flush()
    status = 2 if problem else 1 if failed or not applicable else 0
    return status, len(passed), len(failed)


def worker(args):
    import warnings

    import launchers
    import shim
    import suites
    warnings.simplefilter('ignore')
    [sut] = args.suts
    launcher = launchers.LAUNCHERS[sut]()
    shim.install(launcher)
    protocol = args.proto
    exclusions = suites.Exclusions(
        os.path.join(HERE, 'excluded.txt'), sut, protocol)
    todo = []
    results = []
    index, count = args.shard
    match = re.compile(args.match).search if args.match else bool
    for n, item in enumerate(suites.collect()):
        name = f'{protocol}:{item.name}'
        reason = exclusions.reason(item.name)
        if args.excluded and not args.list:
            reason = None
        if not match(name) or n % count != index - 1:
            continue
        result = dict(name=name, local=item.local)
        results.append(result)
        if reason:
            result.update(status='excluded', reason=reason)
        else:
            result['status'] = 'not run'
            todo.append((item, result))
    for line, regex in exclusions.unused():
        print(f'excluded.txt:{line}: matches nothing: {regex}',
              file=sys.stderr)
    if args.list:
        for result in results:
            print(result['name'] if result['status'] != 'excluded' else
                  'EXCLUDED {} -- {}'.format(result['name'], result['reason']))
        return 0
    problem = None
    try:
        launcher.check()
    except launchers.Unavailable as exc:
        problem = str(exc)
    else:
        Runner(args, todo).run()
    with open(args.worker, 'w') as f:
        json.dump(dict(tests=results, problem=problem), f)
    return 0


class Job:
    pass


class Runner:
    """Each test in a fork of its own, which leads its own process group."""

    def __init__(self, args, todo):
        self.args = args
        self.todo = list(todo)
        self.total = len(todo)
        self.done = 0
        self.jobs = []
        self.tmp = tempfile.mkdtemp(
            '', 'conf-', os.environ.get('CONFORMANCE_TMP') or None)
        self.logs = os.path.join(args.results, args.suts[0] + '-logs')

    def run(self):
        os.makedirs(self.logs, exist_ok=True)
        try:
            while self.todo or self.jobs:
                while self.todo and len(self.jobs) < self.args.jobs:
                    self.start(*self.todo.pop(0))
                self.wait()
        finally:
            for job in self.jobs:
                kill(job.pid)
            shutil.rmtree(self.tmp, ignore_errors=True)

    def start(self, item, result):
        job = Job()
        job.result = result
        job.folder = tempfile.mkdtemp('', 't', self.tmp)
        job.log = os.path.join(job.folder, 'test.log')
        os.mkdir(os.path.join(job.folder, 'work'))
        timeout = self.args.timeout + sum(
            s for p, s in SLOW if p.fullmatch(item.name))
        job.start = time.monotonic()
        job.deadline = job.start + timeout
        r, w = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        job.pid = os.fork()
        if not job.pid:
            os.close(r)
            child(item, job, w)
        os.close(w)
        job.pipe = r
        job.data = b''
        self.jobs.append(job)

    def wait(self):
        now = time.monotonic()
        first = min(job.deadline for job in self.jobs)
        pipes = {job.pipe: job for job in self.jobs}
        readable, _, _ = select.select(list(pipes), [], [],
                                       max(0, min(first - now, 1)))
        for fd in readable:
            job = pipes[fd]
            data = os.read(fd, 1 << 16)
            job.data += data
            if not data or data.endswith(b'\n'):
                # Told (or died): give it the word only once.
                self.finish(job)
        now = time.monotonic()
        for job in list(self.jobs):
            if job.deadline < now:
                self.finish(job, 'timeout')

    def finish(self, job, status=None):
        self.jobs.remove(job)
        if status == 'timeout':
            stacks(job.pid)
        kill(job.pid)
        os.close(job.pipe)
        outcome = dict(status=status or 'crashed', detail='', servers=None)
        if job.data.endswith(b'\n'):
            outcome = json.loads(job.data)
        result = job.result
        result.update(outcome, seconds=round(time.monotonic() - job.start, 2))
        failed = result['status'] != 'passed'
        name = re.sub(r'[^\w.-]+', '_', result['name'])[-200:] + '.log'
        log = os.path.join(self.logs, name)
        if failed:
            self.save(job, log)
            result['log'] = log
        elif os.path.exists(log):
            os.remove(log)
        shutil.rmtree(job.folder, ignore_errors=True)
        self.done += 1
        if failed or self.args.verbose:
            print('[%d/%d] %s %s %.1f s' % (
                self.done, self.total, result['status'].upper(),
                result['name'], result['seconds']), flush=True)
        elif self.done % 50 == 0:
            print('[%d/%d]' % (self.done, self.total), flush=True)

    def save(self, job, log):
        """Keep what the test and its servers wrote."""
        paths = [job.log]
        for base, _, files in os.walk(job.folder):
            paths += [os.path.join(base, f) for f in files
                      if f.endswith('.out') or f == 'server.log']
        with open(log, 'w') as out:
            out.write(job.result.get('detail') or '')
            for path in paths:
                out.write(f'\n==== {os.path.relpath(path, job.folder)}\n')
                try:
                    with open(path, errors='replace') as f:
                        out.write(f.read()[-200000:])
                except OSError as exc:
                    out.write(str(exc))


def stacks(pid):
    """Have a test which hangs write where it hangs to its log."""
    try:
        os.kill(pid, signal.SIGUSR1)
        time.sleep(.3)
    except ProcessLookupError:
        pass


def kill(pid):
    """Kill the test and all it has started, servers included."""
    for group in True, False:
        try:
            (os.killpg if group else os.kill)(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def child(item, job, pipe):
    """In the fork: run the test, write the outcome to the pipe, vanish."""
    outcome = dict(status='crashed', detail='', servers=0)
    try:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdin = open(0, closefd=False)
        sys.stdout = open(1, 'w', buffering=1, closefd=False)
        sys.stderr = open(2, 'w', buffering=1, closefd=False)
        import faulthandler
        faulthandler.register(signal.SIGUSR1, open(job.log, 'a'))
        unprivileged()
        os.chdir(os.path.join(job.folder, 'work'))
        tempfile.tempdir = os.getcwd()
        outcome.update(run_test(item))
    except BaseException:
        outcome.update(status='error', detail=traceback.format_exc())
    finally:
        try:
            import shim
            outcome['servers'] = shim.started
            sys.stdout.flush()
            data = json.dumps(outcome).encode() + b'\n'
            while data:
                data = data[os.write(pipe, data):]
            # Wait for the parent, which kills the whole group.
            time.sleep(30)
        finally:
            os._exit(1)


def unprivileged():
    """Some tests want read-only files to be so, even if root runs them."""
    if os.geteuid() or not sys.platform.startswith('linux'):
        return
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    if libc.capget(header, data) == 0:
        for i in 0, 1:      # effective, permitted: DAC_OVERRIDE, READ_SEARCH
            data[i] &= ~0b110
        libc.capset(header, data)


def run_test(item):
    import unittest
    layers = item.layers
    for layer in layers:
        if getattr(layer, 'setUp', None):
            layer.setUp()
    for layer in layers:
        if getattr(layer, 'testSetUp', None):
            layer.testSetUp()
    result = unittest.TestResult()
    item.test.run(result)
    for layer in reversed(layers):
        if getattr(layer, 'testTearDown', None):
            layer.testTearDown()
    import shim
    servers = shim.launcher.problems()
    detail = ''.join(text for _, text in result.failures + result.errors)
    detail += ''.join(f'{problem}\n' for problem in servers)
    if result.unexpectedSuccesses:
        detail += 'unexpected success'
    if detail:
        status = 'failed' if result.failures else 'error'
    elif result.skipped:
        status, detail = 'skipped', '; '.join(t for _, t in result.skipped)
    elif not result.testsRun:
        status = 'not run'
    else:
        status = 'passed'
    return dict(status=status, detail=detail[-20000:])


if __name__ == '__main__':
    into_venv()
    sys.exit(main())
