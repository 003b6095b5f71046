#!/usr/bin/env bash
# Fuzzes the parsers with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer; needs clang-14 and its runtime.
# What it finds lies in build/fuzz/finds; a find that is mended becomes a seed in tests/fuzz/seeds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
  echo "usage: tests/fuzz/run.sh [--no-install] [--seconds N] [TARGET...]" >&2
  echo "  --seconds N   for each target (default 60)" >&2
  echo "  TARGET        configuration, token_index, json_lines, checkpoint_index, safetensors (default: all)" >&2
  exit 2
}

install=yes seconds=60 targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --no-install) install=no ;;
    --seconds)
      [ $# -ge 2 ] || usage
      seconds=$2
      shift
      ;;
    -*) usage ;;
    *) targets+=("$1") ;;
  esac
  shift
done
[ ${#targets[@]} -gt 0 ] || targets=(configuration token_index json_lines checkpoint_index safetensors)

if [ "$install" = yes ]; then launch/packages.sh build test fuzz; fi
cmake --preset fuzz
cmake --build build/fuzz --target "${targets[@]/#/fuzz_}"
for target in "${targets[@]}"; do
  mkdir -p "build/fuzz/corpus/$target" build/fuzz/finds
  echo "== $target, $seconds s"
  "build/fuzz/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -max_len=8192 \
    -close_fd_mask=1 -print_final_stats=1 -artifact_prefix="build/fuzz/finds/$target-" \
    "build/fuzz/corpus/$target" "tests/fuzz/seeds/$target"
done
