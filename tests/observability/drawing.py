"""Draws a dashboard as its users see it: every panel in its place, with the data of a running Prometheus.

Not Grafana: the kinds of panels that our dashboards have, its colours, and nothing that moves.
"""

import math
import os

import matplotlib

matplotlib.use("Agg")

import matplotlib.dates
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch, Wedge
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

WIDTH, ROW, DPI = 1400, 33, 100
BACK, CARD, EDGE, TEXT, DIM, GRID = "#111217", "#181b1f", "#2a2d33", "#ccccdc", "#8e8e9a", "#26292f"
NAMED = {"green": "#73bf69", "yellow": "#fade2a", "red": "#f2495c", "blue": "#5794f2", "orange": "#ff9830", "purple": "#b877d9", "text": TEXT}
COLOURS = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a",
           "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477"]
plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 7.5, "text.color": TEXT, "axes.edgecolor": EDGE,
                     "axes.labelcolor": DIM, "xtick.color": DIM, "ytick.color": DIM})


def scaled(value, base, prefixes):
    """The value with the prefix that makes it short."""
    step = 0
    while abs(value) >= base and step < len(prefixes) - 1:
        value, step = value / base, step + 1
    return value, prefixes[step]


def number(value, decimals=None):
    if decimals is None:
        decimals = 0 if value == int(value) or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def shown(value, unit, decimals=None):
    """A value in its unit, as people read it."""
    if unit == "percentunit":
        return number(value * 100, decimals) + " %"
    if unit == "s":
        if value == 0:
            return "0 s"
        for limit, factor, name in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (60, 1, "s")):
            if abs(value) < limit:
                return f"{number(value * factor, decimals)} {name}"
        return f"{number(value / 60, decimals)} min"
    if unit in ("bytes", "Bps"):
        value, prefix = scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
        return f"{number(value, decimals)} {prefix}{'/s' if unit == 'Bps' else ''}"
    value, prefix = scaled(value, 1000, ["", "K", "M", "G"])
    tail = {"reqps": " req/s", "ops": " ops/s", "wps": " /s", "iops": " /s"}.get(unit, "")
    return f"{number(value, decimals)}{' ' + prefix if prefix else ''}{tail}"


def legend(target, labels):
    """The name of a series, by the target's pattern."""
    text = target.get("legendFormat", "")
    for name, value in labels.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def colour_of(value, defaults):
    """The colour of the highest threshold that the value reaches."""
    chosen = "green"
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            chosen = step["color"]
    return NAMED.get(chosen, TEXT)


def overrides_of(panel, name):
    """Properties that the panel sets for one series."""
    found = {}
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"] == {"id": "byName", "options": name}:
            found.update({prop["id"]: prop["value"] for prop in override["properties"]})
    return found


class Card:
    """The place of a panel in the picture, in pixels from the top left."""

    def __init__(self, figure, place, height):
        self.figure, self.height = figure, height
        self.x, self.y = place["x"] / 24 * WIDTH + 4, place["y"] * ROW + 4
        self.w, self.h = place["w"] / 24 * WIDTH - 8, place["h"] * ROW - 8

    def axes(self, left, top, right, bottom):
        """Axes inside the card, this far from its edges."""
        x, y = (self.x + left) / WIDTH, 1 - (self.y + self.h - bottom) / self.height
        return self.figure.add_axes((x, y, (self.w - left - right) / WIDTH, (self.h - top - bottom) / self.height), facecolor=CARD)

    def text(self, x, y, words, **style):
        return self.figure.text((self.x + x) / WIDTH, 1 - (self.y + y) / self.height, words, **style)

    def frame(self, title):
        box = FancyBboxPatch((self.x / WIDTH, 1 - (self.y + self.h) / self.height), self.w / WIDTH, self.h / self.height,
                             boxstyle="square,pad=0", transform=self.figure.transFigure, facecolor=CARD, edgecolor=EDGE, linewidth=0.8, zorder=-1)
        self.figure.add_artist(box)
        self.text(9, 16, title, fontsize=8.5, fontweight="bold", va="center")

    def nothing(self):
        self.text(self.w / 2, self.h / 2, "No data", color=DIM, fontsize=10, ha="center", va="center")


def is_empty(results):
    return not any(found for _, found in results)


def draw_stat(card, panel, results):
    defaults = panel["fieldConfig"]["defaults"]
    samples = results[0][1][0][1]
    last = samples[-1][1]
    colour = colour_of(last, defaults)
    words = shown(last, defaults["unit"], defaults.get("decimals"))
    for mapping in defaults["mappings"]:
        words = mapping["options"].get(number(last), {"text": words})["text"]
    if panel["options"]["graphMode"] == "area" and len(samples) > 1:
        axes = card.axes(1, card.h * 0.55, 1, 1)
        axes.axis("off")
        times, values = zip(*samples)
        axes.fill_between(times, values, color=colour, alpha=0.18, linewidth=0)
        axes.plot(times, values, color=colour, linewidth=1.2)
        axes.set_ylim(0, max(values) * 1.15 or 1)
        axes.margins(x=0)
    size = min(21, card.w / (len(words) * 0.95))
    card.text(card.w / 2, card.h * 0.5, words, fontsize=size, color=colour, ha="center", va="center", fontweight="bold")


def draw_gauge(card, panel, results):
    defaults = panel["fieldConfig"]["defaults"]
    value = results[0][1][0][1][-1][1]
    share = min(1, max(0, (value - defaults["min"]) / (defaults["max"] - defaults["min"])))
    axes = card.axes(8, 24, 8, 6)
    axes.axis("off")
    axes.set_aspect("equal")
    axes.set_xlim(-1.1, 1.1)
    axes.set_ylim(-0.15, 1.1)
    axes.add_patch(Wedge((0, 0), 1, 0, 180, width=0.26, color=GRID))
    axes.add_patch(Wedge((0, 0), 1, 180 - 180 * share, 180, width=0.26, color=colour_of(value, defaults)))
    axes.text(0, 0.05, shown(value, defaults["unit"], defaults.get("decimals")), fontsize=13, fontweight="bold", ha="center",
              color=colour_of(value, defaults))


def series_of(results):
    """Name, labels and samples of every series, the largest last value first within each target."""
    for target, found in results:
        for labels, samples in sorted(found, key=lambda one: legend(target, one[0])):
            yield legend(target, labels), samples


def with_gaps(series, stacked):
    """The series without lines over what was not measured: a gap ends a line, and takes nothing of a stack."""
    times = sorted({at for _, samples in series for at, _ in samples})
    for name, samples in series:
        known = dict(samples)
        yield name, times, [known.get(at, 0.0 if stacked else math.nan) for at in times]


def grade(axes, unit, most):
    """Grades the y axis in steps that are round in the unit."""
    if unit in ("bytes", "Bps") and most > 5:
        axes.yaxis.set_major_locator(MultipleLocator(2 ** math.ceil(math.log2(most / 5))))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=unit == "none" and most > 4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))


def draw_timeseries(card, panel, results, span):
    defaults = panel["fieldConfig"]["defaults"]
    axes = card.axes(58, 30, 14, 52)
    series = list(series_of(results))
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    colours = []
    for nth, (name, _) in enumerate(series):
        fixed = overrides_of(panel, name).get("color", {}).get("fixedColor")
        colours.append(NAMED.get(fixed, COLOURS[nth % len(COLOURS)]))
    floor, most = None, 0
    for (name, times, values), colour in zip(with_gaps(series, stacked), colours):
        days = [at / 86400 for at in times]
        style = "--" if "custom.lineStyle" in overrides_of(panel, name) else "-"
        if stacked:
            floor = floor or [0] * len(times)
            top = [low + value for low, value in zip(floor, values)]
            axes.fill_between(days, floor, top, color=colour, alpha=0.55, linewidth=0, zorder=2)
            axes.plot(days, top, color=colour, linewidth=0.9, label=name, zorder=3)
            floor = values = top
        else:
            axes.plot(days, values, style, color=colour, linewidth=1.3, label=name, zorder=3)
            if len(series) <= 3 and style == "-":
                axes.fill_between(days, values, color=colour, alpha=0.08, linewidth=0, zorder=2)
        most = max([most] + [value for value in values if not math.isnan(value)])
    axes.set_xlim(span[0] / 86400, span[1] / 86400)
    axes.set_ylim(0, defaults.get("max", (most or 1) * 1.06))
    grade(axes, defaults["unit"], most)
    dress(axes)
    named = [(handle, label) for handle, label in zip(*axes.get_legend_handles_labels()) if label]
    per_row = max(1, int(card.w // (28 + 6.2 * max([len(label) for _, label in named] + [8]))))
    kept = named[: per_row * 2]
    if kept:
        axes.legend(*zip(*kept), loc="upper left", bbox_to_anchor=(-0.06, -0.13), ncol=per_row, frameon=False, fontsize=7,
                    labelcolor=TEXT, handlelength=1.2, columnspacing=1.2, handletextpad=0.5, borderpad=0.1, labelspacing=0.35)


def dress(axes):
    axes.xaxis.set_major_locator(matplotlib.dates.AutoDateLocator(minticks=3, maxticks=6))
    axes.xaxis.set_major_formatter(matplotlib.dates.DateFormatter("%H:%M:%S"))
    axes.grid(True, color=GRID, linewidth=0.7, zorder=1)
    axes.tick_params(length=0, labelsize=7)
    for side in axes.spines.values():
        side.set_visible(False)


def draw_heatmap(card, panel, results, span):
    bands = {float(labels["le"]): dict(samples) for labels, samples in results[0][1]}
    bounds = sorted(bound for bound in bands)
    times = sorted({at for samples in bands.values() for at in samples})
    rows, names = [], []
    before = dict.fromkeys(times, 0)
    for bound in bounds:
        row = [max(0, bands[bound].get(at, 0) - before[at]) for at in times]
        before = {at: bands[bound].get(at, before[at]) for at in times}
        rows.append(row)
        names.append("more" if math.isinf(bound) else shown(bound, "s"))
    axes = card.axes(58, 30, 14, 28)
    image = [[math.sqrt(value) for value in row] for row in rows]
    axes.imshow(image, aspect="auto", origin="lower", cmap="inferno", interpolation="nearest",
                extent=(times[0] / 86400, times[-1] / 86400, 0, len(rows)), zorder=2)
    axes.set_yticks([nth + 0.5 for nth in range(0, len(rows), 2)], names[::2])
    axes.set_xlim(span[0] / 86400, span[1] / 86400)
    dress(axes)


def draw_bars(card, panel, results):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    rows = sorted(((legend(target, labels), value) for target, found in results for labels, value in found), key=lambda row: -row[1])[:10]
    most = rows[0][1] or 1
    height = min(24, (card.h - 34) / len(rows))
    wide = min(card.w * 0.36, 20 + 6.4 * max(len(name) for name, _ in rows))
    axes = card.axes(wide, 30, 70, card.h - 34 - height * len(rows))
    for nth, (name, value) in enumerate(rows):
        axes.barh(nth, 1, color=GRID, height=0.62)
        axes.barh(nth, value / most, color=COLOURS[nth % len(COLOURS)], height=0.62)
        axes.text(-0.02, nth, name[-26:], ha="right", va="center", fontsize=7.5)
        axes.text(1.02, nth, shown(value, unit), ha="left", va="center", fontsize=7.5, color=COLOURS[nth % len(COLOURS)])
    axes.set_xlim(0, 1)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axis("off")


def draw_table(card, panel, results):
    organize = panel["transformations"][1]["options"]["renameByName"]
    key = panel["transformations"][0]["options"]["byField"]
    columns = [organize[f"Value #{target['refId']}"] for target, _ in results]
    units = [overrides_of(panel, column)["unit"] for column in columns]
    rows = {}
    for nth, (_, found) in enumerate(results):
        for labels, value in found:
            rows.setdefault(labels[key], [None] * len(columns))[nth] = value
    rows = sorted(rows.items(), key=lambda row: -(row[1][0] or 0))[: int((card.h - 52) // 20)]
    place = [card.w * (0.30 + 0.69 * (nth + 1) / len(columns)) for nth in range(len(columns))]
    card.text(12, 40, organize[key], color="#6e9fff", fontsize=7.5, fontweight="bold", va="center")
    for x, column in zip(place, columns):
        card.text(x, 40, column, color="#6e9fff", fontsize=7.5, fontweight="bold", ha="right", va="center")
    for nth, (name, values) in enumerate(rows):
        y = 62 + 20 * nth
        card.text(12, y, name, fontsize=8, va="center")
        for x, value, unit in zip(place, values, units):
            card.text(x, y, "" if value is None else shown(value, unit), fontsize=8, ha="right", va="center")


def draw_panel(card, panel, prometheus, span):
    results = [(target, prometheus.read(target)) for target in panel["targets"]]
    card.frame(panel["title"])
    if is_empty(results):
        return card.nothing()
    kinds = {"stat": draw_stat, "gauge": draw_gauge, "bargauge": draw_bars, "table": draw_table}
    if panel["type"] in kinds:
        return kinds[panel["type"]](card, panel, results)
    over_time = {"timeseries": draw_timeseries, "heatmap": draw_heatmap}
    return over_time[panel["type"]](card, panel, results, span)


def draw(board, prometheus, path):
    """Draws one dashboard; where the picture is."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"]) * ROW + 8
    figure = plt.figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=BACK)
    span = (prometheus.until - prometheus.span, prometheus.until)
    for panel in board["panels"]:
        card = Card(figure, panel["gridPos"], height)
        if panel["type"] == "row":
            card.text(6, card.h / 2 + 4, panel["title"], fontsize=9.5, fontweight="bold", color=TEXT, va="center")
        else:
            draw_panel(card, panel, prometheus, span)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    figure.savefig(path, facecolor=BACK)
    plt.close(figure)
    shrink(path)
    return path


def shrink(path):
    """Keeps as many colours as a picture of few needs."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(96)
    small.save(path, optimize=True)
