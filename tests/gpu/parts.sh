# The parts of tests/gpu/run_all.sh: what each runs. For scripts that source this.
# shellcheck shell=bash disable=SC2034,SC2154 # run_all.sh and rows.sh set what these read, and read what they set

part_kernels() { each_test kernels '^(ops|device)_'; }
part_ranks() { each_test ranks '^(parallel|train)_'; }
part_golden() { each_test golden '^golden_'; }

# gpu_training PART OPTIONS...: training steps, whose rows are in the results as far as they have come.
gpu_training() {
  local part=$1 log=$out/$1-training_steps.log rest
  rest=$(left)
  run "$part" "training steps" 10800 "${python[@]}" tests/bench/gpu_training.py "${models[@]}" --program "$program" --lib "$libraries" \
    --seconds $((rest > 20 ? rest - 10 : rest)) --out "$out/$part.json" "${@:2}"
  [ "$dry" = no ] && [ -s "$log" ] || return 0
  sed -n '/^|/p; /^bar/p; /^left out/p; /^halved/p' "$log"
  if grep -q '^cut off' "$log"; then record "$part" "more training steps" cut 0 "no time was left"; fi
}

# Two rounds of few steps, ours alone: whether a step runs, and about how fast, before anything that takes long.
part_steps() {
  local models=("${chosen_models[@]}") python=(python3)
  [ ${#models[@]} -gt 0 ] || models=(red_150m dec_150m red_1b dec_1b)
  gpu_training steps --alone --rounds 1 --steps 5
}

part_pytorch() {
  local models=("${chosen_models[@]}") python=(python3)
  if [ "$dry" = no ]; then
    if [ "$install" = yes ] && ! python_with_gpu; then launch/python_packages.sh bench || say "PyTorch cannot be had"; fi
    if ! python_with_gpu; then
      skip pytorch PyTorch "neither build/python-bench nor python3 has a PyTorch that sees the GPU"
      return
    fi
  fi
  gpu_training pytorch --rounds "$rounds"
}

# Sets `python` to the first whose PyTorch sees the GPU: build/python-bench may have one for CPUs.
python_with_gpu() {
  local found
  for found in build/python-bench/bin/python3 python3; do
    command -v "$found" >/dev/null || continue
    if "$found" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
      python=("$found")
      return 0
    fi
  done
  return 1
}

# Ranks that see one GPU share it, and exchange its memory through the host's; those that see as many as they are have one each.
part_layouts() {
  local test ranks before
  for ranks in 2 4 8; do
    for test in golden_cuda_step_gpu_test golden_cuda_adafactor_gpu_test; do
      before=(env "CUDA_VISIBLE_DEVICES=$first_gpu")
      must_say='ranks exchange GPU memory over MPI, through host memory'
      run_test layouts "$test" "$ranks" shared
      before=()
      must_say='ranks exchange GPU memory over NCCL'
      run_test layouts "$test" "$ranks" each
      must_say=''
    done
  done
}

# Tests of ops whose kernels are ours, from the list of all: products are cuBLASLt's, whose insides are not ours to check.
tests_of_kernels() {
  local test rest
  while read -r test rest; do
    if [[ $test =~ ^ops_cuda_ && ! $test =~ ^ops_cuda_matmul_(gpu|library|repeats) ]]; then echo "$test"; fi
  done <"$tests/list.txt"
}

# under_sanitizer PART TOOL...: those tests under each of the tools.
under_sanitizer() {
  local part=$1 tool test all=()
  [ -s "$tests/list.txt" ] || { lacks "$part" "all tests" "$tests/list.txt is not there: build the target red_gpu_tests"; return; }
  mapfile -t all < <(tests_of_kernels)
  if [ "$dry" = no ]; then
    if ! command -v compute-sanitizer >/dev/null; then
      skip "$part" "all tests" "there is no compute-sanitizer (it comes with the CUDA toolkit)"
      return
    fi
  fi
  excuse='Device not supported' # under some virtual machines
  for tool in "${@:2}"; do
    for test in "${all[@]}"; do
      if [ ! -x "$tests/$test" ] && [ "$dry" = no ]; then lacks "$part" "$tool $test" "it is not built"; continue; fi
      run "$part" "$tool $test" 600 "${with_lib[@]}" compute-sanitizer --tool "$tool" --error-exitcode 9 "$tests/$test" \
        --gtest_filter='-*.ThreadsDoNotChangeABit:*.ScratchMemoryIsAsPlanned'
      [ $? != 2 ] || break 2
    done
  done
  excuse=''
}
part_memcheck() { under_sanitizer memcheck memcheck; }
part_sanitizer() { under_sanitizer sanitizer racecheck initcheck synccheck; }

part_ops() {
  local model
  local models=("${chosen_models[@]}")
  [ ${#models[@]} -gt 0 ] || models=(red_150m dec_150m)
  for model in "${models[@]}"; do
    measure ops "$model" 600 "${with_lib[@]}" "$program" bench ops --device cuda --config "configs/models/$model.ini" --data.window=2048 \
      --train.micro_batch=16 --train.precision=bf16 --json
  done
}

comm_on() { # comm_on NAME RANKS OPTIONS...
  on_ranks "$2" "$program" bench comm --device cuda --config configs/models/red_150m.ini --train.precision=bf16 --to-mib 256 --json \
    "${@:3}"
  measure comm "$1" 600 "${words[@]}"
}

part_comm() {
  local axes=(--parallel.data=2 --parallel.tensor=2 --parallel.encoder_stages=1)
  if [ "$mpirun" = no ] && [ "$dry" = no ]; then
    skip comm "all" "there is no mpirun"
    return
  fi
  # All GPUs on the data axis; then every axis, as far as the GPUs suffice; then two and eight ranks that share what is there.
  if [ "$gpus" -gt 1 ] || [ "$dry" = yes ]; then
    comm_on nccl "$gpus" --parallel.data="$gpus" --parallel.transport=nccl
    if [ "$gpus" -ge 8 ]; then
      comm_on nccl_axes 8 "${axes[@]}" --parallel.transport=nccl
    elif [ "$gpus" -ge 4 ]; then
      comm_on nccl_axes 4 --parallel.tensor=2 --parallel.encoder_stages=1 --parallel.transport=nccl
    else
      comm_on nccl_tensor 2 --parallel.tensor=2 --parallel.transport=nccl
      comm_on nccl_pipeline 2 --parallel.encoder_stages=1 --parallel.transport=nccl
    fi
  else
    skip comm nccl "there is one GPU"
  fi
  comm_on staged 2 --parallel.data=2 --parallel.transport=staged
  comm_on staged_axes 8 "${axes[@]}" --parallel.transport=staged
}

# The program as it is used: a run that is saved, gone on with and repeated, bit by bit; what it says of the GPU; generation.
part_program() {
  local folder=$out/program_run model=${chosen_models[0]:-red_150m} ours=("${with_lib[@]}" "$program") cpu=$build/redllm
  local config=(--config "configs/models/$model.ini" --config "$folder/run.ini")
  if [ "$dry" = no ]; then
    rm -rf "$folder" && mkdir -p "$folder" || return
    cat launch/*.sh tests/gpu/*.sh tests/gpu/*.py tests/bench/*.py >"$folder/scripts.txt"
    program_configuration "$folder" >"$folder/run.ini"
  fi
  run program tokenizer 120 "${ours[@]}" tokenizer train --out "$folder/t.model" --vocab-size 512 "$folder/scripts.txt" &&
    run program data 120 "${ours[@]}" data build --tokenizer "$folder/t.model" --out "$folder/scripts" --split blank-lines "$folder/scripts.txt" || return
  measure program preflight 120 "${ours[@]}" preflight "${config[@]}" --train.run_dir="$folder/none" --json &&
    run program "preflight reads the GPU's sensors" 10 grep '"no_sensors": ""' "$out/program-preflight.json"
  run program train 300 "${ours[@]}" train "${config[@]}" --train.run_dir="$folder/whole" || return
  run program "train again" 300 "${ours[@]}" train "${config[@]}" --train.run_dir="$folder/again"
  must_say='equal, 0 differ'
  run program "repeat has the same bits" 120 "${ours[@]}" inspect checkpoint "$folder/whole" --diff "$folder/again"
  must_say=''
  run program "train from the middle" 300 "${ours[@]}" train "${config[@]}" --train.run_dir="$folder/resumed" \
    --resume="$folder/whole/checkpoints/step-00000003"
  must_say='equal, 0 differ'
  run program "resumed run has the same bits" 120 "${ours[@]}" inspect checkpoint "$folder/whole" --diff "$folder/resumed"
  must_say=''
  run program "verify" 120 "${ours[@]}" inspect checkpoint "$folder/whole" --verify
  run program "generate" 120 "${ours[@]}" generate --checkpoint "$folder/whole" --prompt 'set -euo' --max-tokens 8
  if [ -x "$cpu" ] || [ "$dry" = yes ]; then
    run program "generate on the CPU" 300 "${with_lib[@]}" "$cpu" generate --checkpoint "$folder/whole" --prompt 'set -euo' --max-tokens 8
  else
    skip program "generate on the CPU" "$cpu is not built"
  fi
  measure program "bench_generate_$model" 300 "${ours[@]}" bench generate --device cuda --config "configs/models/$model.ini" \
    --train.precision=bf16 --batch 8 --json
}

program_configuration() { # program_configuration FOLDER: six steps of the model, on short windows
  cat <<END
[model]
vocab_size = 512
[train]
steps = 6
global_batch = 2
micro_batch = 1
precision = bf16
deterministic = yes
[schedule]
warmup_steps = 2
[checkpoint]
every = 3
[data]
tokenizer = $1/t.model
window = 128
[data.source.scripts]
tokens = $1/scripts
END
}
