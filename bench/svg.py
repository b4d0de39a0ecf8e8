"""Plots as SVG: lines over logarithmic axes, and bars."""

import math

COLORS = ("#1f6feb", "#d1442f", "#3a8a3a", "#8a5bb5", "#b8860b", "#4a9a9a", "#777777")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 380, 70, 190, 40, 60


def _document(title, body):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
            f'<text x="{LEFT}" y="22" font-size="15">{title}</text>{"".join(body)}</svg>\n')


def _text(x, y, text, anchor="middle", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{text}</text>'


def _line(x1, y1, x2, y2, color, width=1.0):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width}"/>'


def _number(v):
    return f"{v:g}" if v < 1e4 else f"1e{math.log10(v):g}"


class Axis:
    """Logarithmic: values to pixels, and where the ticks are."""

    def __init__(self, values, start, end):
        low, high = min(values), max(values)
        self.low = math.log10(low) if high > low else math.log10(low) - 0.5
        self.high = math.log10(high) if high > low else math.log10(low) + 0.5
        self.start, self.end = start, end

    def at(self, value):
        return self.start + (math.log10(value) - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self):
        return [10.0 ** e for e in range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)]


def lines(path, title, x_title, y_title, series):
    """series: {name: [(x, y)]}, all positive."""
    series = {name: sorted(points) for name, points in series.items() if points}
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    x_axis = Axis(xs, LEFT, WIDTH - RIGHT)
    y_axis = Axis([10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys)))], HEIGHT - BOTTOM, TOP)
    body = [_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 18, x_title),
            _text(18, (TOP + HEIGHT - BOTTOM) / 2, y_title,
                  extra=f'transform="rotate(-90 18 {(TOP + HEIGHT - BOTTOM) / 2:.1f})"')]
    for v in y_axis.ticks():
        body += [_line(LEFT, y_axis.at(v), WIDTH - RIGHT, y_axis.at(v), "#dddddd"),
                 _text(LEFT - 6, y_axis.at(v) + 4, _number(v), "end")]
    for v in sorted(set(xs)):
        body += [_line(x_axis.at(v), TOP, x_axis.at(v), HEIGHT - BOTTOM, "#eeeeee"),
                 _text(x_axis.at(v), HEIGHT - BOTTOM + 18, _number(v))]
    for n, (name, points) in enumerate(series.items()):
        color = COLORS[n % len(COLORS)]
        path_points = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in points)
        body.append(f'<polyline points="{path_points}" fill="none" stroke="{color}" stroke-width="2"/>')
        body += [f'<circle cx="{x_axis.at(x):.1f}" cy="{y_axis.at(y):.1f}" r="3" fill="{color}"/>' for x, y in points]
        body += [_line(WIDTH - RIGHT + 12, TOP + 18 * n + 8, WIDTH - RIGHT + 32, TOP + 18 * n + 8, color, 2),
                 _text(WIDTH - RIGHT + 38, TOP + 18 * n + 12, name, "start")]
    with open(path, "w", encoding="utf-8") as f:
        f.write(_document(title, body))


def bars(path, title, y_title, values, mark=None):
    """values: {name: value}, positive, on a logarithmic axis; mark: a line to compare with."""
    ys = list(values.values()) + ([mark] if mark else [])
    y_axis = Axis([10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys)) + 1e-9)], HEIGHT - BOTTOM, TOP)
    right = WIDTH - 20
    step = (right - LEFT) / len(values)
    base = y_axis.at(mark) if mark else HEIGHT - BOTTOM
    body = [_text(18, (TOP + HEIGHT - BOTTOM) / 2, y_title,
                  extra=f'transform="rotate(-90 18 {(TOP + HEIGHT - BOTTOM) / 2:.1f})"')]
    for v in y_axis.ticks():
        body += [_line(LEFT, y_axis.at(v), right, y_axis.at(v), "#dddddd"),
                 _text(LEFT - 6, y_axis.at(v) + 4, _number(v), "end")]
    for n, (name, value) in enumerate(values.items()):
        top, bottom = sorted((y_axis.at(value), base))
        color = COLORS[1] if mark and value < mark else COLORS[0]
        body += [f'<rect x="{LEFT + n * step + step * 0.15:.1f}" y="{top:.1f}" width="{step * 0.7:.1f}" '
                 f'height="{max(bottom - top, 0.5):.1f}" fill="{color}"/>',
                 _text(LEFT + (n + 0.5) * step, HEIGHT - BOTTOM + 18, name)]
    if mark:
        body.append(_line(LEFT, base, right, base, "#333333"))
    with open(path, "w", encoding="utf-8") as f:
        f.write(_document(title, body))
