"""Plots as SVG: grouped bars and lines, both axes labelled, readable on light and dark pages."""

import math
from html import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 78, 18, 66, 62
COLOURS = {"standpipe": "#1565c0", "haproxy": "#e07b00", "nginx": "#2e7d32", "direct": "#8a8a8a"}
SPARE = ("#7b1fa2", "#c2185b", "#00838f", "#5d4037")


def show(value):
    """A number as short as it can be said."""
    if value == 0:
        return "0"
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (limit if unit != 'k' else 1e3):.3g}{unit}"
    if size >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


class Axis:
    """Values to pixels, linear from zero or logarithmic by decades."""

    def __init__(self, values, low, high, log):
        self.log, self.low, self.high = log, low, high
        values = [value for value in values if value is not None and (value > 0 or not log)]
        values = values or [1.0]
        if log:
            self.first = 10 ** math.floor(math.log10(min(values)) + 1e-9)
            self.last = 10 ** math.ceil(math.log10(max(values)) - 1e-9)
            if self.first == self.last:
                self.last = self.first * 10
            decades = round(math.log10(self.last / self.first))
            self.ticks = [self.first * 10 ** n for n in range(decades + 1)]
        else:
            self.first = 0.0
            step = nice(max(values) / 5)
            self.last = math.ceil(max(values) / step + 1e-9) * step
            count = round(self.last / step)
            self.ticks = [step * n for n in range(count + 1)]

    def at(self, value):
        if self.log:
            value = max(value, self.first)
            share = math.log(value / self.first) / math.log(self.last / self.first)
        else:
            share = (value - self.first) / (self.last - self.first)
        return self.low + share * (self.high - self.low)


def nice(step):
    if step <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(step))
    return next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= step)


class Page:
    def __init__(self, title, note=""):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>']
        self.text(LEFT, 22, title, size=15, bold=True)
        if note:
            self.text(LEFT, 40, note, size=11, colour="#555555")

    def text(self, x, y, words, anchor="start", size=12, colour="#222222", turn=None, bold=False):
        turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
                          f' fill="{colour}"{weight}{turned}>{escape(str(words))}</text>')

    def line(self, x1, y1, x2, y2, colour="#dddddd", width=1.0):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
                          f'stroke="{colour}" stroke-width="{width}"/>')

    def frame(self, y_axis, x_label, y_label):
        for tick in y_axis.ticks:
            y = y_axis.at(tick)
            self.line(LEFT, y, WIDTH - RIGHT, y)
            self.text(LEFT - 6, y + 4, show(tick), "end")
        self.line(LEFT, TOP, LEFT, HEIGHT - BOTTOM, "#444444")
        self.line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "#444444")
        self.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x_label, "middle")
        self.text(18, (TOP + HEIGHT - BOTTOM) / 2, y_label, "middle", turn=-90)

    def legend(self, names):
        x = LEFT
        for index, name in enumerate(names):
            self.parts.append(f'<rect x="{x:.1f}" y="48" width="11" height="11" '
                              f'fill="{colour(name, index)}"/>')
            self.text(x + 16, 58, name)
            x += 34 + 6.6 * len(name)

    def whisker(self, x, y_axis, low, high):
        top, bottom = y_axis.at(high), y_axis.at(low)
        self.line(x, top, x, bottom, "#222222", 1.2)
        for y in (top, bottom):
            self.line(x - 3, y, x + 3, y, "#222222", 1.2)

    def close(self):
        return "\n".join([*self.parts, "</svg>", ""])


def colour(name, index=0):
    return COLOURS.get(name, SPARE[index % len(SPARE)])


def bars(title, groups, names, values, x_label, y_label, note="", log=False):
    """`values[group, name]` is (median, low, high); what was not measured stays a gap."""
    known = [value for value in values.values() if value]
    if not known:
        return None
    page = Page(title, note)
    y_axis = Axis([v for value in known for v in value], HEIGHT - BOTTOM, TOP, log)
    page.frame(y_axis, x_label, y_label)
    page.legend(names)
    room = (WIDTH - RIGHT - LEFT) / len(groups)
    width = min(64, room * 0.8 / len(names))
    for g, group in enumerate(groups):
        middle = LEFT + room * (g + 0.5)
        page.text(middle, HEIGHT - BOTTOM + 18, group, "middle")
        for n, name in enumerate(names):
            value = values.get((group, name))
            if not value:
                continue
            x = middle + width * (n - len(names) / 2)
            top = y_axis.at(value[0])
            page.parts.append(
                f'<rect x="{x + 1:.1f}" y="{top:.1f}" width="{width - 2:.1f}" '
                f'height="{max(0.5, HEIGHT - BOTTOM - top):.1f}" fill="{colour(name, n)}"/>')
            page.whisker(x + width / 2, y_axis, value[1], value[2])
            page.text(x + width / 2, min(top, y_axis.at(value[2])) - 5, show(value[0]), "middle",
                      size=10)
    return page.close()


def lines(title, series, x_label, y_label, note="", log_x=True, log_y=False):
    """`series[name]` is a list of (x, median, low, high)."""
    points = [point for line in series.values() for point in line]
    if not points:
        return None
    page = Page(title, note)
    y_axis = Axis([v for p in points for v in p[1:]], HEIGHT - BOTTOM, TOP, log_y)
    x_axis = Axis([p[0] for p in points], LEFT + 14, WIDTH - RIGHT - 14, log_x)
    page.frame(y_axis, x_label, y_label)
    page.legend(list(series))
    for x in sorted({point[0] for point in points}):
        page.line(x_axis.at(x), HEIGHT - BOTTOM, x_axis.at(x), HEIGHT - BOTTOM + 5, "#444444")
        page.text(x_axis.at(x), HEIGHT - BOTTOM + 18, show(x), "middle")
    for index, (name, line) in enumerate(series.items()):
        line = sorted(line)
        path = " ".join(f"{x_axis.at(p[0]):.1f},{y_axis.at(p[1]):.1f}" for p in line)
        page.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour(name, index)}" '
                          'stroke-width="2"/>')
        for x, median, low, high in line:
            page.whisker(x_axis.at(x), y_axis, low, high)
            page.parts.append(f'<circle cx="{x_axis.at(x):.1f}" cy="{y_axis.at(median):.1f}" '
                              f'r="3.5" fill="{colour(name, index)}"/>')
    return page.close()
