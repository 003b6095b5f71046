#!/usr/bin/env bash
# Real text in, a trained RedLLM out: prepares text that Debian packages carry (or your own), trains a tokenizer and a
# small encoder-decoder on 4 MPI ranks, measures perplexity on held-out text, and writes a continuation.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'END'
usage: launch/quickstart.sh [--no-install] [--fresh] [--steps N] [--out DIR] [--text FILE...]
  --no-install  use the packages that are there; without it, missing Debian packages are installed
  --fresh       start over; without it, finished parts are kept and the training resumes
  --steps N     optimizer steps (default 150)
  --out DIR     where everything goes (default build/quickstart)
  --text FILE...  your own .txt or .jsonl files, each a source by its name, instead of the packages' text
END
}

install=yes fresh=no steps=150 out=build/quickstart files=()
while [ $# -gt 0 ]; do
  case $1 in
    --no-install) install=no ;;
    --fresh) fresh=yes ;;
    --steps | --out)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      if [ "$1" = --steps ]; then steps=$2; else out=$2; fi
      shift
      ;;
    --text) shift; files=("$@"); break ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[[ $steps =~ ^[1-9][0-9]*$ ]] || { echo "quickstart: --steps $steps is no positive number" >&2; exit 2; }

say() { printf '\n== %s\n' "$*"; }

if [ "$install" = yes ]; then
  say "packages"
  launch/packages.sh build text
fi
say "build"
cmake --preset release >/dev/null
cmake --build build/release --target redllm
program=build/release/redllm
begin=$SECONDS

if [ "$fresh" = yes ]; then rm -rf "${out:?}"; fi
mkdir -p "$out"

say "text"
if [ ! -f "$out/text/done" ]; then
  rm -rf "$out/text" "$out/tokenizer.model"
  python3 launch/quickstart_text.py --out "$out/text" "${files[@]}"
  touch "$out/text/done"
else
  echo "kept: $out/text (--fresh starts over)"
fi
mapfile -t sources < <(find "$out/text" -name '*.train.jsonl' -printf '%f\n' | sed 's/\.train\.jsonl$//' | sort)

say "tokenizer, 4,096 pieces"
if [ ! -f "$out/tokenizer.model" ]; then
  rm -rf "$out/tokens" "$out/run"
  "$program" tokenizer train --out "$out/tokenizer.model" --vocab-size 4096 --sample-mib 4 "$out"/text/*.train.jsonl
else
  echo "kept: $out/tokenizer.model"
fi

say "token files"
mkdir -p "$out/tokens"
configuration="$out/quickstart.ini"
{
  cat <<END
# Written by launch/quickstart.sh.
[train]
steps = $steps
global_batch = 16
micro_batch = 4
run_dir = $out/run

[schedule]
peak = 0.01
warmup_steps = 20

[data]
tokenizer = $out/tokenizer.model
window = 256

[checkpoint]
every = 50
END
  for source in "${sources[@]}"; do
    printf '\n[data.source.%s]\ntokens = %s\nheld_out = %s\n' "$source" "$out/tokens/$source" "$out/tokens/$source.held-out"
  done
} >"$configuration"
for source in "${sources[@]}"; do
  for part in train held-out; do
    prefix="$out/tokens/$source"
    [ "$part" = train ] || prefix="$prefix.held-out"
    if [ ! -f "${prefix}_text_document.json" ]; then
      "$program" data build --tokenizer "$out/tokenizer.model" --out "$prefix" "$out/text/$source.$part.jsonl"
    fi
  done
done

say "training: 4 ranks = data 2 x (1 encoder stage + 1 decoder stage)"
launch/local.sh -n 4 "$program" train --config configs/models/red_tiny.ini --config "$configuration" \
  --parallel.data=2 --parallel.encoder_stages=1

say "perplexity on held-out text"
"$program" eval perplexity --checkpoint "$out/run" --max-windows 32

say "a continuation"
prompt='And it came to pass'
echo "prompt: $prompt"
"$program" generate --checkpoint "$out/run" --prompt "$prompt" --max-tokens 40 --temperature 0.8 --top-k 50

say "result"
python3 - "$out" "${sources[@]}" <<'END'
import json, pathlib, sys
out, sources = pathlib.Path(sys.argv[1]), sys.argv[2:]
last = [json.loads(line) for line in (out / "run/metrics.jsonl").read_text().splitlines()][-10:]
loss = sum(m["cross_entropy"] for m in last) / len(last)
sizes = [json.loads((out / f"tokens/{s}_text_document.json").read_text()) for s in sources]
unigram = sum(s["unigram_entropy"] for s in sizes) / len(sizes)  # every source has the same share of the samples
print(f"loss {loss:.3f} nats/token at the end, unigram entropy of the text {unigram:.3f} nats/token")
sys.exit(0 if loss < unigram - 0.2 else "quickstart: the loss is not clearly below the unigram entropy; give it more --steps")
END
cat <<END
text           $out/text
tokenizer      $out/tokenizer.model
token files    $out/tokens
configuration  $configuration
run            $out/run: metrics.jsonl, checkpoints/, configuration.ini
$((SECONDS - begin)) s after packages and build
END
