"""Turns the runs of world.sh (one JSON object a line) into one JSON file and a page.

    world_report.py RUNS.jsonl OUT.json OUT.md
"""

import json
import statistics
import sys

from language_report import cpu, heading, seconds


def compare(runs, what):
    """Medians over runs, and ratios within pairs: on a shared machine speed drifts between minutes."""
    ours, peer, floor = ([r for r in runs if (r["what"], r["by"]) == (what, by)]
                         for by in ("cosmos", "diffusers", "floor"))  # fmt: skip
    row = {"what": what}
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
    starts = [r for r in runs if r["what"] == "start"]
    each = [s["first_step_begins_s"] / r["seconds"] for s, r in zip(starts, reads)]
    return {"shape": reads[0]["shape"], "bytes": reads[0]["bytes"], "read_s": [r["seconds"] for r in reads],
            "first_step_begins_s": [s["first_step_begins_s"] for s in starts],
            "ratio_of_each_pair": each, "ratio": statistics.median(each)}  # fmt: skip


def page(runs, rows, first):
    measured = [r for r in runs if "load_average" in r]
    versions = next((r["versions"] for r in runs if "versions" in r), None)
    about = "Floor: the same run's products, convolutions and attention, noted and run again with everything else left out."
    if versions:
        about = f"Peer: diffusers {versions['diffusers']} on torch {versions['torch']}, float32. " + about
    lines = heading("The parts of a generation beside diffusers", "tools/bench/world.sh", about, measured)
    if rows:
        lines += ["| | ours, s | diffusers, s | floor, s | time, ours / diffusers (range of pairs) | gap from diffusers "
                  "to the floor closed | peak memory, ours / diffusers |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        each = r["time_ratio_of_each_pair"]
        lines.append(f"| {r['what']} | {r['cosmos']['step_s']:.3f} | {r['diffusers']['step_s']:.3f} | "
                     f"{r['floor']['step_s']:.3f} | {r['time_ratio']:.2f} ({min(each):.2f}-{max(each):.2f}) | "
                     f"{100 * r['gap_closed']:.0f} % | {r['memory_ratio']:.2f} |")  # fmt: skip
    if first:
        each = first["ratio_of_each_pair"]
        lines += ["", f"A checkpoint of {first['bytes'] / 1e9:.2f} GB (shape {first['shape']}, bfloat16), cold cache: first "
                  f"step begins after {statistics.median(first['first_step_begins_s']):.2f} s, `cat` reads the file in "
                  f"{statistics.median(first['read_s']):.2f} s: {first['ratio']:.2f} times "
                  f"({min(each):.2f}-{max(each):.2f})."]  # fmt: skip
    return lines + ["", "Peak memory is the process' largest resident set, libraries and weights included."]


def main():
    runs = [json.loads(line) for line in open(sys.argv[1])]
    rows = [compare(runs, what) for what in ("encode", "decode", "step") if any(r["what"] == what for r in runs)]
    first = start(runs) if any(r["what"] == "start" for r in runs) else None
    report = {"cpu": cpu(), "rows": rows, "start": first}
    with open(sys.argv[2], "w") as out:
        out.write(json.dumps(report, indent=1) + "\n")
    with open(sys.argv[3], "w") as out:
        out.write("\n".join(page(runs, rows, first)) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
