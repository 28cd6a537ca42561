"""Turns the runs of dit_step.sh (one JSON object a line) into one JSON file and a page.

    dit_step_report.py RUNS.jsonl OUT.json OUT.md
"""

import json
import platform
import statistics
import sys

WHAT = ("cosmos", "diffusers", "compiled", "floor")
WARM = 2  # steps left out at the start of each run: first touch of memory, thread start, compilation


def describe(runs):
    """Medians over runs of one program: step time, peak memory, start."""
    return {
        "step_s": statistics.median(statistics.median(r["step_s"][WARM:]) for r in runs),
        "step_s_of_each_run": [statistics.median(r["step_s"][WARM:]) for r in runs],
        "first_step_begins_s": statistics.median(r["first_step_begins_s"] for r in runs),
        "first_step_s": statistics.median(r["step_s"][0] for r in runs),
        "peak_memory_bytes": statistics.median(r["peak_memory_bytes"] for r in runs),
        "load_average_before": [r["load_average"] for r in runs],
    }


def compare(runs, timestep):
    found = {what: [r for r in runs if r["what"] == what and r["timestep"] == timestep]
             for what in WHAT}
    out = {what: describe(of) for what, of in found.items()}
    ratios = [statistics.median(ours["step_s"][WARM:]) / statistics.median(peer["step_s"][WARM:])
              for ours, peer in zip(found["cosmos"], found["diffusers"])]
    out["time_ratio_to_compiled"] = statistics.median(
        statistics.median(ours["step_s"][WARM:]) / statistics.median(peer["step_s"][WARM:])
        for ours, peer in zip(found["cosmos"], found["compiled"]))
    ours, peer, floor = (out[w]["step_s"] for w in ("cosmos", "diffusers", "floor"))
    out["time_ratio"] = statistics.median(ratios)
    out["time_ratio_of_each_pair"] = ratios
    out["memory_ratio"] = (out["cosmos"]["peak_memory_bytes"]
                           / out["diffusers"]["peak_memory_bytes"])
    out["gap_closed"] = (peer - ours) / (peer - floor)
    return out


def page(report):
    lines = [
        "# DiT training step",
        "",
        "Made by `tools/bench/dit_step.sh`; do not edit. Forward, squared error, backward, clipping, "
        "AdamW; 8 layers, 8 heads of 64, latents [1, 16, 4, 24, 40], 64 text tokens, float32.",
        f"Peer: diffusers {report['versions']['diffusers']} on torch "
        f"{report['versions']['torch']}, fused AdamW, eager and through "
        "torch.compile. Floor: the step's own products and attention "
        "through the same library calls, everything else left out.",
        "",
        f"{report['date']}, {report['cpu']}, {report['threads']} threads, {report['pairs']} "
        "alternating pairs, medians. Load average before each run: "
        + ", ".join(f"{x:.1f}" for x in report["load_averages"]) + ".",
        "",
        "| timesteps | | step, s | first step begins, s | first step, s | peak memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, key in (("one a clip", "clip"), ("one a frame", "frame")):
        for what in WHAT:
            row = report[key][what]
            lines.append(f"| {name} | {what} | {row['step_s']:.3f} | "
                         f"{row['first_step_begins_s']:.2f} | {row['first_step_s']:.1f} | "
                         f"{row['peak_memory_bytes'] / 1e6:.0f} |")
    lines += ["", "| timesteps | time, ours / diffusers (range of pairs) | time, ours / compiled | "
              "memory, ours / diffusers | gap from diffusers to the floor closed |",
              "|---|---|---|---|---|"]
    for name, key in (("one a clip", "clip"), ("one a frame", "frame")):
        c = report[key]
        each = c["time_ratio_of_each_pair"]
        lines.append(f"| {name} | {c['time_ratio']:.2f} ({min(each):.2f}-{max(each):.2f}) | "
                     f"{c['time_ratio_to_compiled']:.2f} | {c['memory_ratio']:.2f} | {100 * c['gap_closed']:.0f} % |")
    lines += ["", "Peak memory is the process' largest resident set, libraries included."]
    return "\n".join(lines) + "\n"


def main():
    runs = [json.loads(line) for line in open(sys.argv[1])]
    peer = next(r for r in runs if r["what"] == "diffusers")
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                if line.startswith("model name")), platform.processor())
    report = {
        "benchmark": "dit_step", "date": runs[0]["date"], "cpu": cpu, "threads": runs[0]["threads"],
        "versions": peer["versions"], "pairs": sum(r["what"] == "cosmos" and r["timestep"] == "clip"
                                                   for r in runs),
        "load_averages": [r["load_average"] for r in runs],
        "clip": compare(runs, "clip"), "frame": compare(runs, "frame"),
    }
    with open(sys.argv[2], "w") as out:
        json.dump(report, out, indent=1)
        out.write("\n")
    with open(sys.argv[3], "w") as out:
        out.write(page(report))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
