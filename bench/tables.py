"""The figures of a run for people: a markdown table, and bars."""
import html
import math
import statistics


def summary(rounds):
    """Figures of several rounds -> the median of each, and half of the spread of each in per cent."""
    names = {name for found in rounds for name in found if isinstance(found[name], int | float)}
    columns = {name: [found[name] for found in rounds if name in found] for name in names}
    median = {name: statistics.median(column) for name, column in columns.items()}
    spread = {name: (max(column) - min(column)) / 2 / median[name] * 100 if median[name] else 0
              for name, column in columns.items()}
    return median, spread


def ratio(row, base, median):
    """How many times as good as the base, or None."""
    if not base or not base.get(row.figure) or not median.get(row.figure):
        return None
    better = median[row.figure] / base[row.figure]
    return better if row.more else 1 / better


def cell(row, base, rounds):
    median, spread = summary(rounds)
    if row.figure not in median:
        return 'failed' if any('error' in found for found in rounds) else ''
    value = median[row.figure]
    text = f'{value:,.{row.digits}f}'
    times = ratio(row, base, median)
    if times is not None:
        text += f' ({times:.1f} x)'
    if len(rounds) > 1:
        text += f' ±{spread[row.figure]:.0f} %'
    beside = [words.format(median[name]) for name, words in row.beside.items() if name in median]
    return '; '.join([text, *beside])


def markdown(rows, systems, measured):
    """`measured`: by row and system, the figures of each round. The first system is the base."""
    lines = ['| | ' + ' | '.join(systems) + ' |', '|---|' + '---|' * len(systems)]
    for key, row in rows.items():
        base = summary(measured[key][systems[0]])[0]
        cells = [cell(row, base if name != systems[0] else None, measured[key][name]) for name in systems]
        lines.append(f'| {row.title} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


COLOURS = '#9aa5b1', '#4a90d9', '#1f5fa8', '#d9a441', '#6aa84f', '#a64d79'
BAR, GAP, LEFT, WIDTH, MOST = 13, 12, 330, 560, 32


def svg(rows, systems, measured):
    """Bars: how many times as good as the first system each is, on a scale whose steps double."""
    shown = [key for key, row in rows.items() if summary(measured[key][systems[0]])[0].get(row.figure)]
    height = 60 + len(shown) * (BAR * len(systems) + GAP)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 60}" height="{height}" '
           'font-family="sans-serif" font-size="11">', '<rect width="100%" height="100%" fill="white"/>']

    def x(times):
        least = 1 / 4
        return LEFT + WIDTH * math.log2(max(least, min(times, MOST)) / least) / math.log2(MOST / least)

    for step in (.25, .5, 1, 2, 4, 8, 16, 32):
        out.append(f'<line x1="{x(step):.1f}" x2="{x(step):.1f}" y1="34" y2="{height - 8}" '
                   f'stroke="{"#555" if step == 1 else "#ddd"}"/>')
        out.append(f'<text x="{x(step):.1f}" y="30" text-anchor="middle">{step:g} x</text>')
    for number, name in enumerate(systems):
        at = 10 + number * 175
        out.append(f'<rect x="{at}" y="6" width="10" height="10" fill="{COLOURS[number % len(COLOURS)]}"/>')
        out.append(f'<text x="{at + 15}" y="15">{html.escape(name)}</text>')
    y = 44
    for key in shown:
        base = summary(measured[key][systems[0]])[0]
        out.append(f'<text x="{LEFT - 8}" y="{y + BAR * len(systems) / 2 + 4:.0f}" text-anchor="end">'
                   f'{html.escape(rows[key].title)}</text>')
        for number, name in enumerate(systems):
            times = ratio(rows[key], base, summary(measured[key][name])[0])
            if times is not None:
                left, right = sorted((x(1), x(times)))
                out.append(f'<rect x="{left:.1f}" y="{y}" width="{max(1, right - left):.1f}" height="{BAR - 2}" '
                           f'fill="{COLOURS[number % len(COLOURS)]}"/>')
                out.append(f'<text x="{right + 3:.1f}" y="{y + BAR - 4}" font-size="9">{times:.1f}</text>')
            y += BAR
        y += GAP
    out.append('</svg>')
    return '\n'.join(out) + '\n'
