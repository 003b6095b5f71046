#!/usr/bin/env python3
"""Holds an export to the engine and to float64, and others of the same model to it: check_golden.py EXPORT DIVIDED BF16
BF16-DIVIDED CASE.

CASE/case.json has examples and what is expected of them, CASE/*.bin the logits (engine: fp32, golden: fp64) of all
examples one after another and the gradients. Prints the largest differences; fails where one is too large.
"""
import json
import pathlib
import sys

import numpy
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

LOGITS = 1e-4  # absolute, fp32 against the engine's fp32; they are of size 1
GRADIENT = 2e-5  # relative to max(own norm, 1e-3 of the global norm): fp32 against float64
BF16_LOGITS = 0.1  # absolute, against fp32: sums of some hundred roundings of 2^-9
BF16_LOSS = 1e-2  # relative: hundreds of roundings of 2^-9 average out
PAD = 1  # a token that also stands in texts


def load(folder, has_encoder, **options):
    factory = AutoModelForSeq2SeqLM if has_encoder else AutoModelForCausalLM
    return factory.from_pretrained(folder, trust_remote_code=True, **options)


def padded(rows, side):
    """(B, longest) ids and mask."""
    width = max(len(row) for row in rows) + 2
    ids = torch.full((len(rows), width), PAD)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        at = width - len(row) if side == "left" else 0
        ids[i, at : at + len(row)] = torch.tensor(row)
        mask[i, at : at + len(row)] = 1
    return ids, mask


class Case:
    def __init__(self, folder):
        self.folder = folder
        self.case = json.loads((folder / "case.json").read_text())
        self.examples = self.case["examples"]
        self.has_encoder = self.case["has_encoder"]
        self.prefixes = [example["prefix"] for example in self.examples]

    def logits(self, name, dtype):
        values = numpy.fromfile(self.folder / name, dtype=dtype).reshape(-1, self.case["vocab_size"])
        ends = numpy.cumsum([len(example["decoder_input"]) for example in self.examples])
        return [torch.from_numpy(part.copy()) for part in numpy.split(values, ends[:-1])]

    def arguments(self, examples, side=None, decoder_side=None):
        """Of forward() for these examples, padded or one alone; and the decoder's mask."""
        decoder = [example["decoder_input"] for example in examples]
        ids, mask = padded(decoder, decoder_side) if side else (torch.tensor(decoder), None)
        if not self.has_encoder:
            arguments = {"input_ids": ids, "attention_mask": mask}
            if any(self.prefixes):
                arguments["prefix_lengths"] = torch.tensor([example["prefix"] for example in examples])
            return arguments, mask
        encoder = [example["encoder_input"] for example in examples]
        encoder_ids, encoder_mask = padded(encoder, side) if side else (torch.tensor(encoder), None)
        return {"input_ids": encoder_ids, "attention_mask": encoder_mask, "decoder_input_ids": ids,
                "decoder_attention_mask": mask}, mask


def worst(pairs):
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def check(condition, text):
    print(("ok     " if condition else "FAILED ") + text)
    if not condition:
        sys.exit(1)


def check_logits(case, model, name):
    engine, golden = case.logits("engine.bin", numpy.float32), case.logits("golden.bin", numpy.float64)
    with torch.no_grad():
        alone = [model(**case.arguments([example])[0]).logits[0] for example in case.examples]
        found = worst(zip(alone, engine))
        check(found < LOGITS, f"{name}: logits, one by one, {found:.2e} from the engine's, "
                              f"{worst(zip(alone, golden)):.2e} from float64")
        for side in ("left", "right"):
            for decoder_side in ("left", "right"):
                arguments, mask = case.arguments(case.examples, side, decoder_side)
                logits = model(**arguments).logits
                batch = [row[keep.bool()] for row, keep in zip(logits, mask)]
                found = worst(zip(batch, engine))
                check(found < LOGITS, f"{name}: logits, padded {side} and {decoder_side}, {found:.2e}")


def check_cache(case, model):
    """Token by token with a cache, and in two pieces, against one pass."""
    with torch.no_grad():
        for example in case.examples:
            arguments, _ = case.arguments([example])
            whole = model(**arguments, use_cache=False).logits[0]
            key = "decoder_input_ids" if case.has_encoder else "input_ids"
            ids, cache, pieces = arguments[key], None, []
            begin = max(example["prefix"], 1)
            cuts = [0, *range(begin, ids.shape[1] + 1)]
            for first, last in zip(cuts[:-1], cuts[1:]):
                out = model(**{**arguments, key: ids[:, first:last]}, past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                pieces.append(out.logits[0])
            found = worst([(torch.cat(pieces), whole)])
            if found >= LOGITS:
                check(False, f"cached logits {found:.2e} from those of one pass")
    check(True, "cached logits")


def targets_of(case):
    return [
        torch.tensor([t if keep else -100 for t, keep in zip(example["decoder_target"], example["loss_mask"])])
        for example in case.examples
    ]


def cross_entropy_of_golden(case):
    total, count = 0.0, 0
    for logits, labels in zip(case.logits("golden.bin", numpy.float64), targets_of(case)):
        total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        count += int((labels != -100).sum())
    return total / count


def check_loss(case, model, tolerance, name):
    """`labels` against the golden logits' own cross-entropy; and where no target is masked, labels alone."""
    expected = cross_entropy_of_golden(case)
    arguments, mask = case.arguments(case.examples, "right", "right")
    labels = torch.full(mask.shape, -100)
    for i, row in enumerate(targets_of(case)):
        labels[i, : len(row)] = row
    with torch.no_grad():
        if case.has_encoder:
            losses = [model(**arguments, labels=labels).loss]
            if all(all(example["loss_mask"]) for example in case.examples):
                del arguments["decoder_input_ids"], arguments["decoder_attention_mask"]
                losses.append(model(**arguments, labels=labels).loss)
                left = torch.stack([torch.cat([row[row == -100], row[row != -100]]) for row in labels])
                losses.append(model(**arguments, labels=left).loss)
        else:  # label t is predicted from token t - 1: one more column, whose input does not matter
            one = torch.full((labels.shape[0], 1), PAD)
            arguments["input_ids"] = torch.cat([arguments["input_ids"], one], 1)
            arguments["attention_mask"] = torch.cat([arguments["attention_mask"], 0 * one], 1)
            labels = torch.cat([one * 0 - 100, labels], 1)
            losses = [model(**arguments, labels=labels).loss]
            # What Trainer does with a batch in parts: the sum over these labels by the number of all.
            count = (labels != -100).sum()
            losses.append(model(**arguments, labels=labels, num_items_in_batch=4 * count).loss * 4)
            if any(case.prefixes):
                del arguments["prefix_lengths"]
                losses.append(model(**arguments, labels=labels).loss)
    for loss in losses:
        found = abs(float(loss) / expected - 1)
        check(found < tolerance, f"{name}: loss {float(loss):.6f}, {found:.1e} from {expected:.6f}")


def gradients_of(case, model):
    model.zero_grad()
    total, count = 0.0, 0
    for example, labels in zip(case.examples, targets_of(case)):
        logits = model(**case.arguments([example])[0], use_cache=False).logits[0]
        keep = labels != -100
        total = total + torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        total = total + case.case["z_loss"] * logits[keep].logsumexp(-1).pow(2).sum()
        count += int(keep.sum())
    (total / count).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def check_gradients(case, model):
    floor, expected = 1e-3 * case.case["gradient_norm"], {}
    for name in case.case["parameters"]:
        values = torch.from_numpy(numpy.fromfile(case.folder / f"gradient.{name}.bin"))
        parameter = dict(model.named_parameters())[name]
        turned = parameter.dim() == 2 and name != "embedding.weight"
        expected[name] = (values.reshape(parameter.shape[::-1]).T if turned else values.reshape(parameter.shape))
    got = gradients_of(case, model)
    check(sorted(got) == sorted(expected), "every parameter has a gradient")
    found = max(float((got[n].double() - e).norm()) / max(float(e.norm()), floor) for n, e in expected.items())
    check(found < GRADIENT, f"gradients {found:.1e} from float64")
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again = gradients_of(case, model)
    found = max(float((got[n] - again[n]).norm()) / max(float(got[n].norm()), floor) for n in got)
    check(found < 1e-6, f"gradients with checkpointing {found:.1e} from those without")


def check_other(case, folder, single, dtype, num_files):
    """An export of the same model, rounded or in several files: nothing is missing or too much, and every bit of the
    weights is that of the export in one fp32 file, loaded as `dtype`."""
    name = pathlib.Path(folder).name
    files = sorted(path.name for path in pathlib.Path(folder).glob("*.safetensors"))
    check(len(files) >= num_files, f"{name}: {len(files)} file(s) of weights")
    model, report = load(folder, case.has_encoder, output_loading_info=True)
    wrong = {what: found for what, found in report.items() if found}
    check(not wrong, f"{name}: loads without a complaint {wrong or ''}")
    expected = load(single, case.has_encoder, dtype=dtype)
    found, wanted = model.state_dict(), expected.state_dict()
    check(found.keys() == wanted.keys(), f"{name}: names of weights")
    check(all(weight.dtype == dtype for weight in found.values()), f"{name}: every weight is {dtype}")
    check(all(torch.equal(found[key], wanted[key]) for key in wanted), f"{name}: {len(found)} weights")
    with torch.no_grad():
        arguments = [case.arguments([example])[0] for example in case.examples]
        logits = [model(**each).logits[0] for each in arguments]
        others = [expected(**each).logits[0] for each in arguments]
    # Not bit for bit: where a file's weights lie in memory decides in which order PyTorch adds up.
    limit = LOGITS if dtype == torch.float32 else BF16_LOGITS
    apart = worst(zip(logits, others))
    check(apart < limit, f"{name}: logits {apart:.2e} from those of one fp32 file")
    far = worst(zip(logits, case.logits("golden.bin", numpy.float64)))
    check(far < limit, f"{name}: logits {far:.2e} from float64")
    check_loss(case, model, 1e-5 if dtype == torch.float32 else BF16_LOSS, name)


def main():
    torch.set_num_threads(1)
    folder, divided, bf16, bf16_divided = sys.argv[1:5]
    case = Case(pathlib.Path(sys.argv[5]))
    for implementation in ("sdpa", "eager"):
        model = load(folder, case.has_encoder, attn_implementation=implementation)
        check(model.dtype == torch.float32, f"{implementation}: dtype of the export")
        check_logits(case, model, implementation)
    model = load(folder, case.has_encoder)
    check(model.config._attn_implementation == "sdpa", "SDPA is what it is loaded with")
    check(model.get_output_embeddings().weight is model.get_input_embeddings().weight, "the embedding is tied")
    check(model.config.vocab_size == case.case["vocab_size"], "vocabulary")
    check_cache(case, model)
    check_loss(case, model, 1e-5, "fp32")
    check_gradients(case, model)
    check_other(case, divided, folder, torch.float32, 2)
    check_other(case, bf16, folder, torch.bfloat16, 1)
    check_other(case, bf16_divided, folder, torch.bfloat16, 2)


if __name__ == "__main__":
    main()
