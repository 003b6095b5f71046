#!/usr/bin/env python3
"""The tables of docs/performance.md, "On GPUs", and docs/gpu-kernels-of-a-step.md, from `redllm plan --roofline h100` of the ten
models in the layouts of slurm/*.sh, bf16, 2,048 windows of 2,048 tokens a step; and, with redllm-cuda beside it, the table of
"Memory on an H100", from that program's plan. Needs no GPU. --check: writes nothing, and fails where the documents say something else.
    tests/bench/gpu_roofline.py build/release/redllm build/release/redllm-cuda"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZES = ("150m", "1b", "2b", "4b", "8b")
BATCH, WINDOW = 2048, 2048
H100_GIB = 79.6  # of the 80 GB card, as nvidia-smi shows it
PAGE = ROOT / "docs" / "gpu-kernels-of-a-step.md"
HEAD = """# FLOPs and bytes of every kernel of a training step
Made by `tests/bench/gpu_roofline.py build/release/redllm`, from `redllm plan --roofline h100` in the layouts of `slurm/*.sh`: bf16, {batch:,}
windows of {window:,} tokens a step, all runs of an op in a step, all ranks together. One line is one op, which is one kernel or two. FLOPs of products and
attention's are additions and multiplications of matrices; other arithmetic (norms, rotation, SwiGLU, softmax, Adafactor) is counted by
what its definition has for each element, where additions, multiplications, divisions, comparisons, roots and exponentials are one each
(`launch/op_builders.cpp` says how many), and is never what bounds an op. Bytes: each operand is read once and each result written
once; a weight's gradient counts as read and written by each product, though the first one of a step only writes it. Not counted: ids and
positions, norms that tensor ranks repeat. Shapes, runs and least times: the command itself, or `--json`.
"""
GROUPS = (  # the first that fits
    ("logits and cross-entropy", r"^(logits|cross-entropy)"),
    ("Adafactor", r"Adafactor"),
    ("weights to bf16, gradients to zero, gradient norm", r"^(weights to bf16|gradients of emb|gradient norm|scalars of)"),
    ("buckets of data ranks", r"buckets"),
    ("between stages, gradient of the encoder's output", r"next stage|that arrive|^gradient of the encoder|other stages"),
    ("embedding", r"embedding"),
    ("q, k, v norms and rotation, output norms", r"(q, k|q|k|v) norm|output norm"),
    ("norms and residuals", r"norm"),
    ("SwiGLU", r"SwiGLU"),
    ("attention, gradients and delta", r"attention(, causal)?, (gradients|delta)$"),
    ("attention, forward", r"^(encoder, self-attention|decoder, self-attention, causal|cross-attention)$"),
    ("products, input gradient", r"input gradient$"),
    ("products, weight gradient", r"weight gradient$"),
    ("products, forward", r""),
)
ORDER = ("products, forward", "products, input gradient", "products, weight gradient", "attention, forward",
         "attention, gradients and delta", "norms and residuals", "q, k, v norms and rotation, output norms", "SwiGLU",
         "logits and cross-entropy", "embedding", "between stages, gradient of the encoder's output", "buckets of data ranks",
         "weights to bf16, gradients to zero, gradient norm", "Adafactor")


def layout_of(model: str) -> dict:
    """What its job script says."""
    text = (ROOT / "slurm" / f"{model}.sh").read_text()
    layout = dict(re.findall(r"(\w+)=(\d+)", re.search(r'^layout="(.*)"$', text, re.M)[1]))
    return {**{name: int(value) for name, value in layout.items()},
            "micro_batch": int(re.search(r"^micro_batch=(\d+)", text, re.M)[1])}


def plan_of(program: str, model: str, *options: str) -> dict:
    at = layout_of(model)
    done = subprocess.run(
        [program, "plan", "--config", f"{ROOT}/configs/models/{model}.ini", *options, "--json", f"--data.window={WINDOW}",
         "--train.precision=bf16", f"--train.global_batch={BATCH}", f"--train.micro_batch={at['micro_batch']}",
         *(f"--parallel.{axis}={at[axis]}" for axis in ("data", "tensor", "encoder_stages", "decoder_stages"))],
        capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{program} plan of {model} ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def number(x: float) -> str:
    """Three digits, or all before the point; nothing is a dash."""
    if x == 0:
        return "-"
    if x < 0.001:
        return "<0.001"
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}" if x >= 1 else f"{x:.3f}"


def flops(op: dict) -> float:
    return op["flops"] + op["other_flops"]


def table(head: list, rows: list) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]) + "\n"


def words_of(at: dict) -> str:
    stages = f" x ({at['encoder_stages']} + {at['decoder_stages']})" if at["encoder_stages"] else ""
    tensor = f" x tensor {at['tensor']}" if at["tensor"] > 1 else ""
    return f"data {at['data']}{tensor}{stages}"


def models_table(plans: dict) -> str:
    rows = []
    for model, plan in plans.items():
        at, roofline = layout_of(model), plan["roofline"]
        ranks, step_s = plan["num_ranks"], roofline["step_s"]
        by_memory = sum(op["s"] for op in roofline["ops"] if op["bound_by"] == "memory") / step_s
        rows.append([model, str(ranks), words_of(at), str(at["micro_batch"]),
                     f"{roofline['flops'] / 1e12:,.0f}", f"{roofline['other_flops'] / 1e12:.1f}", f"{roofline['bytes'] / 1e12:.1f}",
                     f"{step_s / ranks:.2f}", f"{BATCH * WINDOW / step_s:,.0f}", f"{100 * roofline['mfu']:.0f} %",
                     f"{100 * by_memory:.0f} %", f"{100 * plan['bubble']:.1f} %" if plan["bubble"] else "0"])
    return table(["model", "GPUs", "layout", "micro-batch", "TFLOP of products", "of other arithmetic", "TB", "s a step, at least",
                  "tokens/s for each GPU, at most", "MFU, at most", "of the time bound by memory", "bubble"], rows)


MEMORY = (  # columns, and what redllm plan calls what is in them; what it does not name here is workspace
    ("parameters", ("parameters",)), ("master weights", ("master_weights",)), ("gradients", ("gradients",)),
    ("optimizer state", ("optimizer_state",)), ("buckets", ("gradient_buckets", "whole_gradients")),
    ("activations", ("activations", "recomputed")))
COPY = "checkpoint_copy"  # in the host's memory


def gib(num_bytes: int) -> str:
    x = num_bytes / 2**30
    return f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def memory_table(plans: dict) -> str:
    rows = []
    for model, plan in plans.items():
        for stage in plan["stages"]:
            rank = plan["ranks"][stage["largest_rank"]]
            parts = dict(rank["memory"])
            copy = parts.pop(COPY)
            every = sum(parts.values())
            if every + copy != rank["num_bytes"]:
                sys.exit(f"{model}: the parts of rank {rank['rank']} are {every + copy} bytes, all are {rank['num_bytes']}")
            columns = [sum(parts.pop(name) for name in names) for _, names in MEMORY]
            only = len(plan["stages"]) == 1
            rows.append([model, words_of(layout_of(model)), "all" if only else ("encoder", "decoder")[stage["stage"]],
                         *(gib(column) for column in (*columns, sum(parts.values()), every)),
                         f"{100 * every / 2**30 / H100_GIB:.0f} %", gib(copy)])
    return table(["model", "layout", "stage", *(name for name, _ in MEMORY), "workspace", "all on the GPU", "of 80 GB",
                  "checkpoint copy, host"], rows)


def groups_table(plans: dict) -> str:
    models, sums = ("red_8b", "dec_8b"), {}
    for model in models:
        for op in plans[model]["roofline"]["ops"]:
            group = next(name for name, pattern in GROUPS if re.search(pattern, op["op"]))
            for name in (group, "all"):
                total = sums.setdefault((name, model), [0.0, 0.0, 0.0])
                for i, value in enumerate((flops(op) / 1e12, op["bytes"] / 1e12, op["s"])):
                    total[i] += value
    rows = []
    for group in (*ORDER, "all"):
        row = [group]
        for model in models:
            tflop, tb, seconds = sums.get((group, model), (0.0, 0.0, 0.0))
            row += [number(tflop), number(tb), number(seconds), f"{100 * seconds / sums['all', model][2]:.1f} %"]
        rows.append(row)
    return table(["ops"] + [f"{model}: {what}" if what == "TFLOP" else what for model in models
                            for what in ("TFLOP", "TB", "s, at least", "share")], rows)


def page(plans: dict) -> str:
    text = HEAD.format(batch=BATCH, window=WINDOW)
    for kind, name in (("red", "RedLLM"), ("dec", "DecLLM")):
        found = {}
        for size in SIZES:
            for op in plans[f"{kind}_{size}"]["roofline"]["ops"]:
                found.setdefault(op["op"], {})[size] = op
        rows = [[op, *(cell for size in SIZES for cell in
                       ((number(flops(of[size]) / 1e12), number(of[size]["bytes"] / 1e9)) if size in of else ("", "")))]
                for op, of in found.items()]
        text += f"\n## {name}\n" + table(["op"] + [f"{size}: TFLOP" if i == 0 else "GB" for size in SIZES for i in (0, 1)], rows)
    return text


def replaced(text: str, name: str, content: str) -> str:
    """What lies between a table's two marks."""
    begin, end = f"<!-- gpu_roofline.py: {name} -->\n", "<!-- end -->\n"
    at = text.index(begin) + len(begin)
    return text[:at] + content + text[text.index(end, at):]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="redllm")
    parser.add_argument("cuda_program", nargs="?", help="redllm-cuda, whose plan of memory it is; without it that table is left alone")
    parser.add_argument("--check", action="store_true", help="write nothing; code 1 where a document says something else")
    args = parser.parse_args()
    models = [f"{kind}_{size}" for kind in ("red", "dec") for size in SIZES]
    plans = {model: plan_of(args.program, model, "--roofline", "h100") for model in models}
    tables = {"models": models_table(plans), "groups": groups_table(plans)}
    if args.cuda_program:
        tables["memory"] = memory_table({model: plan_of(args.cuda_program, model) for model in models})
    performance = ROOT / "docs" / "performance.md"
    text = performance.read_text()
    for name, content in tables.items():
        text = replaced(text, name, content)
    other = [path for path, wanted in ((performance, text), (PAGE, page(plans)))
             if not path.exists() or path.read_text() != wanted]
    if args.check:
        for path in other:
            print(f"{path} is not what is counted here: {' '.join(word for word in sys.argv if word != '--check')}", file=sys.stderr)
        return 1 if other else 0
    performance.write_text(text)
    PAGE.write_text(page(plans))
    return 0


if __name__ == "__main__":
    sys.exit(main())
