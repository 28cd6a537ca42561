"""Turns the runs of world.sh (one JSON object a line) into one JSON file and a page.

    world_report.py RUNS.jsonl OUT.json OUT.md
"""

import json
import os
import statistics
import sys

from language_report import cpu, heading, seconds


def compare(runs, what):
    """Medians over runs, and ratios within pairs: on a shared machine speed drifts between minutes."""
    ours, peer, floor = ([r for r in runs if (r["what"], r["by"]) == (what, by)]
                         for by in ("cosmos", "diffusers", "floor"))  # fmt: skip
    row = {"what": what, "date": ours[0]["date"]}
    for name, group in (("cosmos", ours), ("diffusers", peer), ("floor", floor)):
        row[name] = {"step_s": statistics.median(map(seconds, group)),
                     "step_s_of_each_run": [seconds(r) for r in group],
                     "peak_memory_bytes": statistics.median(r["peak_memory_bytes"] for r in group)}  # fmt: skip
    each = [seconds(a) / seconds(b) for a, b in zip(ours, peer)]
    row["time_ratio_of_each_pair"], row["time_ratio"] = each, statistics.median(each)
    row["memory_ratio"] = row["cosmos"]["peak_memory_bytes"] / row["diffusers"]["peak_memory_bytes"]
    gap = row["diffusers"]["step_s"] - row["floor"]["step_s"]
    row["gap_closed"] = (row["diffusers"]["step_s"] - row["cosmos"]["step_s"]) / gap
    return row


def start(runs):
    """From the program's start to its first step's, beside reading the file, in pairs."""
    reads = [r for r in runs if r["what"] == "read"]
    row = {"date": next(r["date"] for r in runs if r["what"] == "start"), "shape": reads[0]["shape"], "bytes": reads[0]["bytes"], "read_s": [r["seconds"] for r in reads]}
    for name, by in (("mapped", "cosmos"), ("copied", "copied")):
        starts = [r for r in runs if (r["what"], r["by"]) == ("start", by)]
        each = [s["first_step_begins_s"] / r["seconds"] for s, r in zip(starts, reads)]
        row[name] = {"first_step_begins_s": [s["first_step_begins_s"] for s in starts],
                     "step_s": [s["step_s"] for s in starts],
                     "first_step_ends_s": [s["first_step_begins_s"] + s["step_s"][0] for s in starts],
                     "resident_share": min(s["resident_bytes"] / s["weight_bytes"] for s in starts),
                     "ratio_of_each_pair": each, "ratio": statistics.median(each)}  # fmt: skip
    return row


def page(runs, rows, first, versions):
    measured = [r for r in runs if "load_average" in r]
    about = "Floor: the same run's products, convolutions and attention, noted and run again with everything else left out."
    if versions:
        about = f"Peer: diffusers {versions['diffusers']} on torch {versions['torch']}, float32. " + about
    lines = heading("The parts of a generation beside diffusers", "tools/bench/world.sh", about, measured)
    if rows:
        lines += ["| | measured | ours, s | diffusers, s | floor, s | time, ours / diffusers (range of pairs) | gap from diffusers "
                  "to the floor closed | peak memory, ours / diffusers |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        each = r["time_ratio_of_each_pair"]
        lines.append(f"| {r['what']} | {r['date']} | {r['cosmos']['step_s']:.3f} | {r['diffusers']['step_s']:.3f} | "
                     f"{r['floor']['step_s']:.3f} | {r['time_ratio']:.2f} ({min(each):.2f}-{max(each):.2f}) | "
                     f"{100 * r['gap_closed']:.0f} % | {r['memory_ratio']:.2f} |")  # fmt: skip
    if first:
        lines += ["", f"A checkpoint of {first['bytes'] / 1e9:.2f} GB (shape {first['shape']}, bfloat16), "
                  f"cold cache, {first['date']}; `cat` reads its file in {statistics.median(first['read_s']):.2f} s. Seconds from the program's start:",
                  "", "| weights | first step begins | beside reading the file (range of pairs) | weights in memory then | "
                  "first step ends | first, second step |", "|---|---|---|---|---|---|"]  # fmt: skip
        for name, title in (("mapped", "in the file's pages"), ("copied", "copied")):
            way, each = first[name], first[name]["ratio_of_each_pair"]
            steps = [statistics.median(s[i] for s in way["step_s"]) for i in (0, 1)]
            lines.append(f"| {title} | {statistics.median(way['first_step_begins_s']):.2f} | {way['ratio']:.2f} "
                         f"({min(each):.2f}-{max(each):.2f}) | {100 * way['resident_share']:.0f} % | "
                         f"{statistics.median(way['first_step_ends_s']):.2f} | {steps[0]:.2f}, {steps[1]:.2f} |")  # fmt: skip
    return lines + ["", "Peak memory is the process' largest resident set, libraries and weights included."]


def kept(path):
    """What an earlier run measured, by name: --only measures a part anew and leaves the others."""
    if not os.path.exists(path):
        return {}
    report = json.load(open(path))
    old = {row["what"]: row for row in report["rows"]} | {key: report.get(key) for key in ("start", "versions")}
    return {key: value for key, value in old.items() if value}


def main():
    runs = [json.loads(line) for line in open(sys.argv[1])]
    old = kept(sys.argv[2])
    rows = [compare(runs, what) if any(r["what"] == what for r in runs) else old[what]
            for what in ("encode", "decode", "step") if what in old or any(r["what"] == what for r in runs)]  # fmt: skip
    first = start(runs) if any(r["what"] == "start" for r in runs) else old.get("start")
    versions = next((r["versions"] for r in runs if "versions" in r), old.get("versions"))
    report = {"cpu": cpu(), "versions": versions, "rows": rows, "start": first}
    with open(sys.argv[2], "w") as out:
        out.write(json.dumps(report, indent=1) + "\n")
    with open(sys.argv[3], "w") as out:
        out.write("\n".join(page(runs, rows, first, versions)) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
