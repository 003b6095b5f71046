#!/usr/bin/env bash
# Builds redllm, runs every test and checks the sources. The last line is "N passed, N failed".
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

usage() {
  cat <<'END'
usage: launch/test.sh [--no-install] [--no-python] [--thorough] [--preset PRESET] [--jobs N] [-- CTEST_ARGUMENTS...]
  --no-install     use the packages that are there; without it, missing Debian packages are installed, and Python's
                   tensorboard and h5py into build/python, Open MPI 5 into build/open_mpi_5, PyTorch, Transformers and
                   lm-evaluation-harness into build/python-convert, and CUDA's compiler and libraries into build/cuda
  --no-python      leave out the tests that read exports with PyTorch, Transformers and lm-evaluation-harness
  --thorough       also clang-tidy, the link of the tests for a GPU, the tests under AddressSanitizer and
                   UndefinedBehaviorSanitizer, and launch/quickstart.sh: an hour more on 2 cores
  --preset PRESET  release (default), debug, asan or tsan
  --jobs N         compile jobs, and cores for the tests (default: all)
example: launch/test.sh --no-install -- -R golden
END
}

install=yes python=yes thorough=no preset=release jobs=$(nproc) ctest_arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --no-install) install=no ;;
    --no-python) python=no ;;
    --thorough) thorough=yes ;;
    --preset | --jobs)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      if [ "$1" = --preset ]; then preset=$2; else jobs=$2; fi
      shift
      ;;
    --help | -h) usage; exit 0 ;;
    --) shift; ctest_arguments=("$@"); break ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

passed=0 failed=0 skipped=0
logs=build/test-logs
mkdir -p "$logs"

report() { # report VERDICT NAME SECONDS
  printf '%-7s %-44s %5s s\n' "$1" "$2" "$3"
}

# check NAME COMMAND...: one counted check; its output is shown when it fails.
check() {
  local name=$1 log="$logs/${1//[^A-Za-z0-9]/_}.log" begin=$SECONDS
  shift
  if "$@" >"$log" 2>&1 </dev/null; then
    passed=$((passed + 1))
    report ok "$name" $((SECONDS - begin))
  else
    failed=$((failed + 1))
    tail -n 80 "$log"
    report FAILED "$name" $((SECONDS - begin))
    return 1
  fi
}

skip() {
  skipped=$((skipped + 1))
  report skipped "$1: $2" 0
}

build() { # build PRESET
  local cuda=AUTO
  if [ "${RED_REQUIRE_CUDA:-}" = 1 ] && [ "$1" = release ]; then cuda=ON; fi
  cmake --preset "$1" -DRED_TESTS=ON "-DRED_CUDA=$cuda" && cmake --build "build/$1" -j "$jobs"
}

# run_tests PRESET [LABEL...]: every ctest test counts by itself, but those with such a label.
run_tests() {
  local results="$PWD/$logs/$1.xml" begin=$SECONDS status=0 tests fails skips
  local without=("${@:2}") exclude=()
  if [ "$python" = no ]; then without+=(python); fi
  if [ ${#without[@]} -gt 0 ]; then exclude=(-LE "^($(IFS='|' && echo "${without[*]}"))\$"); fi
  rm -f "$results"
  ctest --preset "$1" -j "$jobs" --output-junit "$results" "${exclude[@]}" "${ctest_arguments[@]}" </dev/null || status=$?
  tests=$(junit "$results" tests) fails=$(junit "$results" failures)
  skips=$(($(junit "$results" skipped) + $(junit "$results" disabled)))
  if [ "$tests" = 0 ] || { [ "$status" != 0 ] && [ "$fails" = 0 ]; }; then
    failed=$((failed + 1))
    report FAILED "tests, $1: ctest ended with $status after $tests tests" $((SECONDS - begin))
  else
    passed=$((passed + tests - fails - skips)) failed=$((failed + fails)) skipped=$((skipped + skips))
    report "$([ "$fails" = 0 ] && echo ok || echo FAILED)" "tests, $1: $((tests - fails - skips)) of $tests passed" \
      $((SECONDS - begin))
  fi
}

# junit FILE ATTRIBUTE: a count at the head of ctest's report; 0 when it is not there.
junit() {
  local count
  count=$(sed -n "/<testsuite/,/>/ s/.*[[:space:]]$2=\"\([0-9]*\)\".*/\1/p" "$1" 2>/dev/null | head -n 1)
  echo "${count:-0}"
}

format_check() {
  git ls-files -z '*.cpp' '*.hpp' '*.cu' '*.cuh' | xargs -0 clang-format-14 --dry-run --Werror
}

shell_check() {
  git ls-files -z '*.sh' .ci/run slurm/site.env | xargs -0 shellcheck
}

# What Python packages are for can be skipped, unless RED_REQUIRE_TENSORBOARD=1, RED_REQUIRE_OPEN_MPI_5=1 or
# RED_REQUIRE_PYTHON=1 demands it.
python_packages() { # python_packages GROUP REQUIRED
  local name="python packages, $1" log="$logs/python_packages_$1.log"
  if [ "$2" = 1 ]; then
    check "$name" launch/python_packages.sh "$1" || exit 1
  elif ! launch/python_packages.sh "$1" >"$log" 2>&1 </dev/null; then
    skip "$name" "cannot be had, see $log"
  fi
}

# The CUDA backend is built and tested where its parts can be had; RED_REQUIRE_CUDA=1 demands it.
cuda_sdk() {
  if [ "${RED_REQUIRE_CUDA:-}" = 1 ]; then
    check "cuda sdk" launch/cuda_sdk.sh || exit 1
  elif ! launch/cuda_sdk.sh >"$logs/cuda_sdk.log" 2>&1 </dev/null; then
    skip "the CUDA backend" "its parts cannot be had, see $logs/cuda_sdk.log"
  fi
}

if [ "$install" = yes ]; then
  check "packages" launch/packages.sh build test text || exit 1
  python_packages test "${RED_REQUIRE_TENSORBOARD:-}"
  python_packages mpi "${RED_REQUIRE_OPEN_MPI_5:-}"
  if [ "$python" = yes ]; then python_packages convert "${RED_REQUIRE_PYTHON:-}"; fi
  cuda_sdk
else
  launch/packages.sh --check build test text || true
fi
if [ "$python" = no ]; then skip "tests with PyTorch, Transformers and lm-evaluation-harness" "--no-python"; fi
if check "build, $preset" build "$preset"; then
  run_tests "$preset"
  check "every header by itself" cmake --build "build/$preset" -j "$jobs" --target red_header_checks
fi
if git rev-parse --git-dir >/dev/null 2>&1; then
  check "format" format_check
  check "shell scripts" shell_check
else
  skip "format and shell scripts" "no git checkout"
fi
check "order of the folders" python3 cmake/check_layers.py
if [ "$thorough" = yes ]; then
  check "clang-tidy" python3 cmake/check_tidy.py "build/$preset" --jobs "$jobs"
  if grep -qs _gpu_test "build/$preset/gpu_tests/list.txt"; then # they run on a GPU: tests/gpu/run_all.sh
    check "link of tests for a GPU" cmake --build "build/$preset" -j "$jobs" --target red_gpu_tests
  fi
  if [ "$preset" = release ]; then
    if check "build, asan" build asan; then run_tests asan many_ranks python; fi
    check "quickstart" launch/quickstart.sh --no-install
  fi
fi

echo "all in $SECONDS s"
if [ "$skipped" -gt 0 ]; then
  echo "$passed passed, $failed failed, $skipped skipped"
else
  echo "$passed passed, $failed failed"
fi
[ "$failed" = 0 ]
