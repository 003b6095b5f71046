#!/usr/bin/env python3
"""The peers of `redllm bench generate`: Transformers' `generate`, greedy, with its cache, of the same model (src/convert/huggingface,
as `redllm convert` exports it) or of the nearest that Transformers has: Qwen3 for a DecLLM and T5Gemma for a RedLLM, with the same
widths, layers, heads and vocabulary. Parameters are random. Prints one JSON line."""
import argparse
import importlib
import json
import pathlib
import statistics
import sys
import time

import torch
import transformers


def same_model(options):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "src" / "convert"))
    configuration, modeling = (importlib.import_module(f"huggingface.{name}_redllm") for name in ("configuration", "modeling"))
    sizes = {key: getattr(options, key) for key in ("vocab_size", "d_model", "d_ff", "num_heads", "head_dim", "decoder_layers")}
    if options.kind == "dec":
        return modeling.DecLLMForCausalLM(configuration.DecLLMConfig(**sizes))
    return modeling.RedLLMForConditionalGeneration(configuration.RedLLMConfig(**sizes, encoder_layers=options.encoder_layers))


def dec_model(options):
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(
        vocab_size=options.vocab_size, hidden_size=options.d_model, intermediate_size=options.d_ff,
        num_hidden_layers=options.decoder_layers, num_attention_heads=options.num_heads, num_key_value_heads=options.num_heads,
        head_dim=options.head_dim, tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=None))


def red_model(options):
    def module(layers):
        return transformers.T5GemmaModuleConfig(
            vocab_size=options.vocab_size, hidden_size=options.d_model, intermediate_size=options.d_ff, num_hidden_layers=layers,
            num_attention_heads=options.num_heads, num_key_value_heads=options.num_heads, head_dim=options.head_dim,
            query_pre_attn_scalar=options.head_dim, hidden_activation="silu", attn_logit_softcapping=None,
            final_logit_softcapping=None, layer_types=["full_attention"] * layers, pad_token_id=0, bos_token_id=1,
            eos_token_id=None)

    return transformers.T5GemmaForConditionalGeneration(transformers.T5GemmaConfig(
        encoder=module(options.encoder_layers), decoder=module(options.decoder_layers), vocab_size=options.vocab_size,
        tie_word_embeddings=True))


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("red", "dec"), required=True)
    for name, default in (("vocab_size", 32768), ("d_model", 1024), ("d_ff", 4096), ("num_heads", 8), ("head_dim", 128),
                          ("encoder_layers", 0), ("decoder_layers", 8), ("batch", 1), ("prompt_tokens", 128), ("new_tokens", 64),
                          ("steps", 3), ("warmup", 1), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--nearest", action="store_true", help="Transformers' own model, not the same one")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    return parser.parse_args()


@torch.no_grad()
def main():
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dtype = torch.float32 if options.dtype == "fp32" else torch.bfloat16
    make = same_model if not options.nearest else red_model if options.kind == "red" else dec_model
    model = make(options).to(dtype).eval()
    prompts = torch.randint(3, options.vocab_size, (options.batch, options.prompt_tokens))

    def seconds(new_tokens):
        begin = time.perf_counter()
        out = model.generate(input_ids=prompts, attention_mask=torch.ones_like(prompts), do_sample=False, use_cache=True,
                             min_new_tokens=new_tokens, max_new_tokens=new_tokens, decoder_start_token_id=1, eos_token_id=None)
        assert out.shape[1] == new_tokens + (1 if options.kind == "red" else options.prompt_tokens), out.shape
        return time.perf_counter() - begin

    first, whole = [], []
    for step in range(options.warmup + options.steps):
        times = seconds(1), seconds(options.new_tokens)
        if step >= options.warmup:
            first.append(times[0])
            whole.append(times[1])
    prefill, total = statistics.median(first), statistics.median(whole)
    print(json.dumps({
        "program": f"Transformers {transformers.__version__}, PyTorch {torch.__version__}", "model": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "prefill_tokens_per_s": options.batch * options.prompt_tokens / prefill,
        "decode_tokens_per_s": options.batch * (options.new_tokens - 1) / (total - prefill)}))


if __name__ == "__main__":
    main()
