#!/usr/bin/env python3
"""What users do with an export: check_export.py EXPORT LINES PROMPTS.

LINES: JSON Lines of {"text", "ids"}, the engine's. PROMPTS: of {"prompt", "tokens", "stopped"}, the engine's greedy
continuations. Compares tokenizer and generation, and what must be an error is one.
"""
import json
import pathlib
import shutil
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

NEW_TOKENS = 24  # as convert_program_test.cpp asks for


def check(condition, text):
    print(("ok     " if condition else "FAILED ") + text)
    if not condition:
        sys.exit(1)


def read_lines(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]


def check_tokenizer(tokenizer, lines, has_encoder):
    found = tokenizer([line["text"] for line in lines], add_special_tokens=False)["input_ids"]
    wrong = [i for i, line in enumerate(lines) if found[i] != line["ids"]]
    text = "" if not wrong else f": {lines[wrong[0]]['text']!r} gives {found[wrong[0]]}, not {lines[wrong[0]]['ids']}"
    check(not wrong, f"{len(lines) - len(wrong)} of {len(lines)} lines have the engine's ids{text}")
    wrong = [line for line in lines if tokenizer.decode(line["ids"]) != line["text"]]
    text = "" if not wrong else f": {wrong[0]['text']!r} comes back as {tokenizer.decode(wrong[0]['ids'])!r}"
    check(not wrong, f"{len(lines) - len(wrong)} of {len(lines)} lines come back{text}")
    plain = tokenizer("<s> and [EOD]</s>", add_special_tokens=False)["input_ids"]
    check(not set(plain) & set(tokenizer.all_special_ids), "names of control tokens in a text are text")
    with_ends = tokenizer("some text")["input_ids"]
    without = tokenizer("some text", add_special_tokens=False)["input_ids"]
    check(with_ends == (without if has_encoder else [1, *without]), "what stands around a text")


def check_config(folder, has_encoder, tokenizer):
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    generation = GenerationConfig.from_pretrained(folder)
    check(config.vocab_size == len(tokenizer), "vocabulary of model and tokenizer")
    check((tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2), "ids of the tokenizer")
    check(tokenizer.convert_tokens_to_ids("[EOD]") == 4, "id of [EOD]")
    for part in (config, generation):
        ids = (part.pad_token_id, part.bos_token_id, part.eos_token_id)
        check(ids == (0, 1, [2, 4]), f"ids of {type(part).__name__}")
        if has_encoder:
            check(part.decoder_start_token_id == 1, f"start token of {type(part).__name__}")


def continuations(model, tokenizer, prompts, batch, side):
    tokenizer.padding_side = side
    result = []
    for first in range(0, len(prompts), batch):
        texts = [prompt["prompt"] for prompt in prompts[first : first + batch]]
        inputs = tokenizer(texts, return_tensors="pt", padding=True)
        out = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, use_cache=True)
        begin = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        for row in out[:, begin:].tolist():
            end = next((i for i, token in enumerate(row) if token in (2, 4)), len(row))
            result.append(row[:end])
    return result


def check_generation(model, tokenizer, prompts):
    expected = [prompt["tokens"] for prompt in prompts]
    for batch, side in ((1, "left"), (16, "left"), (16, "right")):
        if side == "right" and not model.config.is_encoder_decoder:
            continue  # a decoder goes on behind its prompt
        found = continuations(model, tokenizer, prompts, batch, side)
        same = sum(a == b for a, b in zip(found, expected))
        how = f"{batch} at a time, padded {side}"
        check(same == len(prompts), f"{same} of {len(prompts)} continuations are the engine's, {how}")
    for options in ({"num_beams": 3}, {"do_sample": True, "top_k": 5}, {"use_cache": False}):
        inputs = tokenizer([prompts[0]["prompt"]], return_tensors="pt")
        model.generate(**inputs, max_new_tokens=4, **options)
        check(True, f"generates with {options}")


def must_fail(load, what, word):
    try:
        load()
    except Exception as error:
        check(word in str(error), f"{what} is an error: {str(error).splitlines()[0][:120]}")
        return
    check(False, f"{what} is an error")


def check_errors(folder, factory):
    with tempfile.TemporaryDirectory() as other:
        other = pathlib.Path(other, "model")
        shutil.copytree(folder, other)
        weights = load_file(other / "model.safetensors")
        load = lambda: factory.from_pretrained(other, trust_remote_code=True)
        name = "decoder.layers.0.ffn.up.weight"
        save_file({n: t for n, t in weights.items() if n != name}, other / "model.safetensors", {"format": "pt"})
        must_fail(load, "a missing weight", name)
        save_file({**weights, "decoder.extra": torch.zeros(2)}, other / "model.safetensors", {"format": "pt"})
        must_fail(load, "an unexpected weight", "decoder.extra")
        save_file({**weights, name: weights[name][:-1].clone()}, other / "model.safetensors", {"format": "pt"})
        must_fail(load, "a weight of another shape", name)
        save_file(weights, other / "model.safetensors", {"format": "pt"})
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
        must_fail(load, "an untied head", "tie_word_embeddings")


def main():
    torch.set_num_threads(1)
    folder, lines, prompts = sys.argv[1], read_lines(sys.argv[2]), read_lines(sys.argv[3])
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    has_encoder = config.is_encoder_decoder
    factory = AutoModelForSeq2SeqLM if has_encoder else AutoModelForCausalLM
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    check(tokenizer.padding_side == ("right" if has_encoder else "left"), "padding side")
    check_tokenizer(tokenizer, lines, has_encoder)
    check_config(folder, has_encoder, tokenizer)
    check_generation(factory.from_pretrained(folder, trust_remote_code=True), tokenizer, prompts)
    check_errors(folder, factory)
    # A model that was saved by Transformers loads again, and goes back (the caller does that).
    model = factory.from_pretrained(folder, trust_remote_code=True)
    model.save_pretrained(folder + "-saved", max_shard_size="200KB")
    AutoTokenizer.from_pretrained(folder, trust_remote_code=True).save_pretrained(folder + "-saved")
    again = factory.from_pretrained(folder + "-saved", trust_remote_code=True)
    same = all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
    check(same, "saved by Transformers and loaded again")
    reloaded = AutoTokenizer.from_pretrained(folder + "-saved", trust_remote_code=True)
    texts = [line["text"] for line in lines[:200]]
    check(reloaded(texts)["input_ids"] == tokenizer(texts)["input_ids"], "the tokenizer too")


if __name__ == "__main__":
    main()
