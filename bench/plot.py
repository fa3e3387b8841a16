"""Draws results: `python bench/plot.py RESULTS.json PLOT.png`, in the virtual environment of bench/peers/plot.txt."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl
from PIL import Image

mpl.use("Agg")
import matplotlib.pyplot as plt

SIZES = ("64 B", "1 KiB", "16 KiB", "64 KiB", "1 MiB")
WORKS = ("wrap sealed", "unwrap sealed", "get_mic", "verify_mic")


def main(source: str, target: str) -> None:
    results = json.loads(Path(source).read_text())
    rows = {(row["group"], row["work"]): row["values"] for row in results["rows"]}
    figure, panels = plt.subplots(
        1, 3, figsize=(12, 3.8), width_ratios=(4, 4, 3), layout="constrained"
    )
    for style, etype in (("-o", 18), ("--s", 20)):
        for color, work in zip(("C0", "C1", "C2", "C3"), WORKS, strict=True):
            values = [rows.get((f"etype {etype}", f"{work} {size}")) for size in SIZES]
            if None not in values:
                label = f"{work}, etype {etype}"
                panels[0].plot(
                    SIZES,
                    [v["MIT"] / v["purekrb"] for v in values],
                    style + color,
                    label=label,
                    ms=4,
                )
                panels[1].plot(
                    SIZES, [v["purekrb"] / v["limit"] for v in values], style + color, ms=4
                )
    panels[0].set_title("ahead of MIT via python-gssapi (times)")
    panels[0].set_ylim(bottom=0)
    panels[0].legend(fontsize=7)
    panels[1].set_title("time over OpenSSL's own (limit = 1)")
    panels[1].set_yscale("log")
    panels[1].set_yticks([1, 1.2, 1.5, 2, 3], ["1", "1.2", "1.5", "2", "3"])
    panels[1].minorticks_off()
    for panel in panels[:2]:
        panel.axhline(1, color="black", lw=0.8)
        panel.grid(axis="y", lw=0.3)
    pair = {
        **rows.get(("contexts", "etype 18, context pair, ticket seen"), {}),
        **rows.get(("contexts", "etype 18, beside libraries in other processes"), {}),
    }
    if pair:
        names = sorted(pair, key=pair.__getitem__, reverse=True)
        bars = panels[2].barh(names, [pair[name] * 1e3 for name in names])
        panels[2].bar_label(bars, fmt="%.2f", fontsize=8)
        panels[2].set_title("context pair, etype 18 (ms)")
        panels[2].margins(x=0.15)
    facts = results["facts"]
    figure.supxlabel(f"{facts['date']}, {facts['machine']}, Python {facts['Python']}", fontsize=7)
    figure.savefig(target, dpi=80)
    with Image.open(target) as drawn:  # few colours make a small file
        small = drawn.convert("RGB").quantize(64)
    small.save(target, optimize=True)


main(*sys.argv[1:])
