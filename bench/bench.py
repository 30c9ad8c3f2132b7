#!/usr/bin/env python3
"""Side by side on this machine, in one run: stock ZEO over FileStorage, zrsd with one node and with three, and the
floor: a server that keeps everything in memory and does one fdatasync for each commit (examples/floor.rs).

    make bench                          a markdown table, in about ten minutes
    bench/bench.py [--rounds N] [--seconds S] [--kills N] [--only zeo,one,three,floor] [--rows loads,commits]
                   [--against DIR] [--json FILE] [--svg FILE]
    bench/bench.py --grow               how cost grows with objects, connections, readers, sizes and revisions
    bench/bench.py --import DATA.FS     how fast its records get into a data folder, and by copyTransactionsFrom

All systems run at the same time and take turns, round by round; a figure is the median of its rounds, and ± half of
what lies between the least and the most of them. Loads and commits are made by `examples/load.rs`, as Python clients
would be slower than what they measure; packs and failover are what an unchanged Python client sees. Everything runs on
the loopback of one machine, which servers and load share, so the figures are for comparing, not for planning. $ZRS_BIN
is the folder of zrsd (and of examples/); --against names one with an earlier zrsd, which is measured beside it.
"""
import argparse
import json
import os
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))

sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'tests', 'python'))

from into_venv import into_venv

into_venv()

from grow import grow
from imports import imports
from rows import ROWS, prepare
from systems import running
from tables import markdown, svg


def machine():
    with open('/proc/cpuinfo') as f:
        model = next((line.partition(':')[2].strip() for line in f if line.startswith('model name')), 'unknown')
    return f'{os.cpu_count()} cores ({model})'


def measured_once(row, system, value):
    """A row's figures. (What fails here, after all rounds, must not cost what they have measured.)"""
    try:
        return row.measure(system, value)
    except Exception:
        traceback.print_exc()
        return {'error': 1}


def side_by_side(args):
    wanted = args.rows.split(',') if args.rows else ['']
    rows = {key: row for key, row in ROWS.items() if any(key.startswith(name) for name in wanted)}
    with running(args.only.split(','), args.against) as systems:
        names = [system.name for system in systems]
        measured = {key: {name: [] for name in names} for key in rows}
        for system in systems:
            prepare(system)
        for turn in range(args.rounds):
            for key, row in rows.items():
                # (Whoever comes first in a round comes last in the next one.)
                for system in systems if turn % 2 == 0 else reversed(systems):
                    if not row.once:
                        print(f'round {turn + 1}, {row.title}: {system.name}', file=sys.stderr)
                        measured[key][system.name].append(row.measure(system, args.seconds))
        for key, row in rows.items():
            for system in systems:
                if row.once:
                    value = args.kills if key == 'failover' else args.seconds
                    print(f'{row.title}: {system.name}', file=sys.stderr)
                    measured[key][system.name].append(measured_once(row, system, value))
    said = (f'{time.strftime("%d %B %Y")}, {machine()}, load average at the end {os.getloadavg()[0]:.1f}; servers and load on '
            f'one machine; objects of 600 bytes, 2 in each commit; medians of {args.rounds} rounds of {args.seconds:g} s.')
    print(f'{said}\n\n{markdown(rows, names, measured)}')
    if args.json:
        with open(args.json, 'w') as f:
            json.dump({'said': said, 'systems': names, 'measured': measured}, f, indent=1)
    if args.svg:
        with open(args.svg, 'w') as f:
            f.write(svg(rows, names, measured))
    return any('error' in found for row in measured.values() for rounds in row.values() for found in rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seconds', type=float, default=2, help='for each measurement')
    parser.add_argument('--kills', type=int, default=10)
    parser.add_argument('--only', default='zeo,one,three,floor')
    parser.add_argument('--rows', help='only those whose names begin so: ' + ', '.join(ROWS))
    parser.add_argument('--against', metavar='DIR', help='the folder of an earlier zrsd')
    parser.add_argument('--json', metavar='FILE', help='writes all figures of all rounds there')
    parser.add_argument('--svg', metavar='FILE', help='draws the table there')
    parser.add_argument('--grow', action='store_true')
    parser.add_argument('--most', type=int, default=1_000_000, help='with --grow: up to so many objects')
    parser.add_argument('--import', dest='file', metavar='DATA.FS')
    args = parser.parse_args()
    if args.file:
        return print(imports(args.file))
    if args.grow:
        return grow(args.seconds, args.most, machine())
    return side_by_side(args)


if __name__ == '__main__':
    sys.exit(main())
