"""Turns the runs of language.sh and packing.sh (one JSON object a line) into one JSON file and a page.

    language_report.py RUNS.jsonl OUT.json OUT.md
"""

import json
import statistics
import sys

WARM = 1  # steps left out at the start of each run: first touch of memory, thread start


def seconds(run):
    return statistics.median(run["step_s"][WARM:] or run["step_s"])


def of(runs, by, case):
    return [r for r in runs if r["by"] == by and (r["what"].removeprefix("floor-"), r["shape"], r["dtype"]) == case]


def compare(runs, case):
    """Medians over runs, and ratios within pairs: on a shared machine speed drifts between minutes."""
    ours, peer, floor = (of(runs, by, case) for by in ("cosmos", "transformers", "floor"))
    row = {"what": case[0], "shape": case[1], "dtype": case[2]}
    for name, group in (("cosmos", ours), ("transformers", peer), ("floor", floor)):
        if group:
            row[name] = {
                "step_s": statistics.median(map(seconds, group)),
                "step_s_of_each_run": [seconds(r) for r in group],
                "peak_memory_bytes": statistics.median(r["peak_memory_bytes"] for r in group),
            }
    each = [seconds(b) / seconds(a) for a, b in zip(ours, peer)]
    row["speedup_of_each_pair"] = each
    row["speedup"] = statistics.median(each)
    row["memory_ratio"] = row["cosmos"]["peak_memory_bytes"] / row["transformers"]["peak_memory_bytes"]
    if floor:
        gap = row["transformers"]["step_s"] - row["floor"]["step_s"]
        row["gap_closed"] = (row["transformers"]["step_s"] - row["cosmos"]["step_s"]) / gap
    return row


def cpu():
    lines = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return lines[0] if lines else "unknown CPU"


def heading(title, command, about, runs):
    return [
        f"# {title}", "", f"Made by `{command}`; do not edit. {about}", "",
        f"{runs[0]['date']}, {cpu()}, {runs[0]['threads']} threads, alternating runs, medians. Load average before "
        "each run: " + ", ".join(f"{r['load_average']:.1f}" for r in runs) + ".", "",
    ]  # fmt: skip


def pairs_page(runs, rows):
    versions = next(r["versions"] for r in runs if "versions" in r)
    lines = heading(
        "Language models beside transformers", "tools/bench/language.sh",
        "small: width 1024, 8 layers, 16 heads of 64 on 8 of keys, 32768 classes; 2b: the text half of Reason2-2B. "
        "train: one step on 1,024 tokens (forward, loss, backward, clipping, AdamW); prefill: a prompt of 1,024 "
        "tokens up to its last logits; decode: one token after another at batch 1, time of each. Peer: "
        f"transformers {versions['transformers']} on torch {versions['torch']}, SDPA, fused AdamW. Floor: the "
        "products and attention alone through the same library calls; of decode, every weight read once.", runs,
    )  # fmt: skip
    lines += ["| | dtype | ours, s | transformers, s | floor, s | speed, ours / theirs (range of pairs) | gap to the "
              "floor closed | peak memory, ours / theirs |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        each = r["speedup_of_each_pair"]
        floor = f"{r['floor']['step_s']:.4f}" if "floor" in r else "-"
        gap = f"{100 * r['gap_closed']:.0f} %" if "gap_closed" in r else "-"
        lines.append(
            f"| {r['what']}, {r['shape']} | {r['dtype']} | {r['cosmos']['step_s']:.4f} | "
            f"{r['transformers']['step_s']:.4f} | {floor} | {r['speedup']:.2f} ({min(each):.2f}-{max(each):.2f}) | "
            f"{gap} | {r['memory_ratio']:.2f} |"
        )
    lines += ["", "Peak memory is the process' largest resident set, libraries and weights included."]
    return lines


def packing(runs):
    by = {what: [r for r in runs if r["what"] == what] for what in ("packed", "padded")}
    rates = {what: [r["tokens"] / seconds(r) for r in group] for what, group in by.items()}
    each = [a / b for a, b in zip(rates["packed"], rates["padded"])]
    return {
        "tokens": by["packed"][0]["tokens"], "places_padded": by["padded"][0]["places"],
        "tokens_per_s": {what: statistics.median(rate) for what, rate in rates.items()},
        "peak_memory_bytes": {w: statistics.median(r["peak_memory_bytes"] for r in g) for w, g in by.items()},
        "first_loss": {what: group[0]["loss"][0] for what, group in by.items()},
        "speedup": statistics.median(each), "speedup_of_each_pair": each,
    }  # fmt: skip


def packing_page(runs, row):
    lines = heading(
        "Packing against padding", "tools/bench/packing.sh",
        f"A training step on 16 sequences of 16 to 512 tokens, lengths even in their logarithm ({row['tokens']} tokens "
        f"in all, {row['places_padded']} places padded); width 256, 4 layers, 8192 classes, float32. Tokens are those of "
        "sequences, not of padding; the loss is the same.", runs,
    )  # fmt: skip
    lines += ["| | tokens / s | peak memory, MB | loss of the first step |", "|---|---|---|---|"]
    for what in ("packed", "padded"):
        lines.append(f"| {what} | {row['tokens_per_s'][what]:.0f} | {row['peak_memory_bytes'][what] / 1e6:.0f} | "
                     f"{row['first_loss'][what]:.6f} |")  # fmt: skip
    each = row["speedup_of_each_pair"]
    lines += ["", f"Packed over padded: {row['speedup']:.2f} ({min(each):.2f}-{max(each):.2f})."]
    return lines


def main():
    runs = [json.loads(line) for line in open(sys.argv[1])]
    if runs[0]["what"] in ("packed", "padded"):
        rows = packing(runs)
        lines = packing_page(runs, rows)
    else:
        cases = dict.fromkeys((r["what"], r["shape"], r["dtype"]) for r in runs if r["by"] == "cosmos")
        rows = [compare(runs, case) for case in cases]
        lines = pairs_page(runs, rows)
    report = {"date": runs[0]["date"], "cpu": cpu(), "threads": runs[0]["threads"], "rows": rows,
              "load_averages": [r["load_average"] for r in runs]}  # fmt: skip
    with open(sys.argv[2], "w") as out:
        out.write(json.dumps(report, indent=1) + "\n")
    with open(sys.argv[3], "w") as out:
        out.write("\n".join(lines) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
