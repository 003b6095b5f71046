#!/usr/bin/env bash
# Real text in, a trained RedLLM out: prepares text that Debian packages carry (or your own), trains a tokenizer and a
# small encoder-decoder on 4 MPI ranks, measures perplexity on held-out text, and writes a continuation.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/quickstart.sh [--no-install] [--fresh] [--steps N] [--out DIR] [--text FILE...]
  --no-install    use the packages that are there; without it, missing Debian packages are installed
  --fresh         start over; without it, finished parts are kept and the training resumes
  --steps N       optimizer steps (default 600)
  --out DIR       where everything goes (default build/quickstart)
  --text FILE...  your own .txt or .jsonl files, each a source by its name, instead of the packages' text
END
}

fail() {
  echo "quickstart: $*" >&2
  exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
install=yes fresh=no steps=600 out="$root/build/quickstart" files=()
while [ $# -gt 0 ]; do
  case $1 in
    --no-install) install=no ;;
    --fresh) fresh=yes ;;
    --steps | --out)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      if [ "$1" = --steps ]; then steps=$2; else out=$(realpath -m "$2"); fi
      shift
      ;;
    --text)
      while [ $# -ge 2 ] && [[ $2 != --* ]]; do
        [ -r "$2" ] || fail "--text $2: cannot be read"
        files+=("$(realpath "$2")")
        shift
      done
      [ ${#files[@]} -gt 0 ] || { usage >&2; exit 2; }
      ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[[ $steps =~ ^[1-9][0-9]*$ ]] || fail "--steps $steps: not a positive whole number"
cd "$root"
out=${out#"$root/"} # short in what is printed

part_begin=$SECONDS
say() {
  [ $SECONDS = "$part_begin" ] || echo "($((SECONDS - part_begin)) s)"
  part_begin=$SECONDS
  printf '\n== %s\n' "$*"
}

say "packages"
if [ "$install" = yes ]; then
  launch/packages.sh build text
else
  launch/packages.sh --check build text || true
fi

say "build"
cmake --preset release >/dev/null
cmake --build build/release --target redllm
# Where a GPU answers, its program too, if CMake found CUDA.
if nvidia-smi -L 2>/dev/null | grep '^GPU ' >/dev/null && cmake --build build/release --target help | grep '^redllm-cuda:' >/dev/null; then
  cmake --build build/release --target redllm-cuda
fi
program=$(launch/program.sh)
echo "program: $program"

say "text"
if [ "$fresh" = yes ]; then rm -rf "${out:?}"/{text,tokens,run,tokenizer.model,quickstart.ini}; fi
if [ -f "$out/text/files" ]; then
  [ "$(cat "$out/text/files")" = "${files[*]}" ] || fail "$out was made from other text; pass --fresh to start over"
  echo "kept: $out/text"
else
  rm -rf "$out/text" "$out/tokens" "$out/run" "$out/tokenizer.model"
  python3 launch/quickstart_text.py --out "$out/text" "${files[@]}"
  echo "${files[*]}" >"$out/text/files"
fi
mapfile -t sources < <(find "$out/text" -name '*.jsonl' -printf '%f\n' | sed 's/\.jsonl$//' | sort)

say "tokenizer of 4,096 pieces"
if [ -f "$out/tokenizer.model" ]; then
  echo "kept: $out/tokenizer.model"
else
  "$program" tokenizer train --out "$out/tokenizer.model" --vocab-size 4096 --sample-mib 4 "$out"/text/*.jsonl
fi

say "token files"
mkdir -p "$out/tokens"
for source in "${sources[@]}"; do
  if [ -f "$out/tokens/${source}_text_document.idx" ]; then
    echo "kept: $out/tokens/$source"
  else
    "$program" data build --tokenizer "$out/tokenizer.model" --held-out 0.06 --out "$out/tokens/$source" \
      "$out/text/$source.jsonl"
  fi
done

say "training: 4 ranks = data 2 x (1 encoder stage + 1 decoder stage)"
configuration="$out/quickstart.ini"
{
  cat <<END
# Written by launch/quickstart.sh.
[model]
name = quickstart
kind = red
vocab_size = 4096
d_model = 128
d_ff = 512
num_heads = 2
head_dim = 64
encoder_layers = 2
decoder_layers = 2

[parallel]
data = 2
encoder_stages = 1
decoder_stages = 1

[train]
steps = $steps
global_batch = 8
micro_batch = 2
log_every = 10
run_dir = $out/run

[schedule]
peak = 0.05
warmup_steps = 60

[data]
tokenizer = $out/tokenizer.model
window = 256

[checkpoint]
every = 200
END
  for source in "${sources[@]}"; do
    printf '\n[data.source.%s]\ntokens = %s\nheld_out = %s\n' "$source" "$out/tokens/$source" \
      "$out/tokens/${source}_heldout"
  done
} >"$configuration"
launch/local.sh -n 4 "$program" train --config "$configuration"

say "perplexity on held-out text"
"$program" eval perplexity --checkpoint "$out/run"

say "a continuation"
echo "--- prompt"
cat "$out/text/prompt.txt"
printf '\n--- continuation\n'
"$program" generate --checkpoint "$out/run" --prompt-file "$out/text/prompt.txt" --max-tokens 60 --temperature 0.8 --top-k 50

say "result"
# Means, in nats per token: the loss over the last lines of the metrics, the entropy over sources of equal share.
loss=$(tail -n 10 "$out/run/metrics.jsonl" | sed -n 's/.*"cross_entropy": *\([0-9.]*\).*/\1/p' |
  awk '{ sum += $1 } END { printf "%.3f", sum / NR }')
entropy=$(for source in "${sources[@]}"; do
  sed -n 's/.*"unigram_entropy": *\([0-9.]*\).*/\1/p' "$out/tokens/${source}_text_document.json"
done |
  awk '{ sum += $1 } END { printf "%.3f", sum / NR }')
cat <<END
loss at the end                  $loss nats/token
unigram entropy of the text      $entropy nats/token
text and tokenizer               $out/text, $out/tokenizer.model
token files                      $out/tokens
configuration                    $configuration
metrics                          $out/run/metrics.jsonl
checkpoints                      $out/run/checkpoints
END
if ! awk -v loss="$loss" -v entropy="$entropy" 'BEGIN { exit !(loss < entropy - 0.5) }'; then
  echo "quickstart: the loss is not clearly below the unigram entropy; give it more --steps" >&2
  exit 1
fi
echo "all in $SECONDS s"
