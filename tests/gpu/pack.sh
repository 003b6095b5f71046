#!/usr/bin/env bash
# Packs what tests/gpu/run_all.sh needs on a machine that cannot build: tests/gpu/pack.sh FILE BUILD_FOLDER WITHOUT_NVIDIA
# WITHOUT_GOLDEN, the last two yes or no. Of libraries all that the programs load but the C library's own, which is the machine's,
# and the driver's, which comes with it. Open MPI is the one of build/open_mpi_5, which runs wherever it lies.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
file=$(realpath -m "$1") build=$2 without_nvidia=$3 without_golden=$4
mpi=build/open_mpi_5
fail() { echo "pack: $*" >&2; exit 1; }
[ -x "$mpi/bin/mpirun" ] || fail "$mpi has no mpirun: launch/python_packages.sh mpi gets it"
[ -s "$build/gpu_tests/list.txt" ] || fail "$build/gpu_tests/list.txt is not there: build the target red_gpu_tests"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

programs=("$build/redllm-cuda")
if [ -x "$build/redllm" ]; then programs+=("$build/redllm"); fi # it reads what the other has written
while read -r test _; do
  if [ -x "$build/gpu_tests/$test" ]; then programs+=("$build/gpu_tests/$test"); fi
done <"$build/gpu_tests/list.txt"

# The libraries that these load, with the packed Open MPI in the place of the one they were built with.
libraries_of() { LD_LIBRARY_PATH=$PWD/$mpi/lib ldd "$@" | sed -n 's/.* => \(\/.*\) (0x.*/\1/p' | sort -u; }
mapfile -t libraries < <(libraries_of "${programs[@]}")

# Some are found by name while they run: cuDNN's engines and NVRTC's builtins lie beside them.
mkdir -p "$folder/lib"
for library in "${libraries[@]}"; do
  case ${library##*/} in
    libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | libresolv.so.* | ld-linux* | libcuda.so.* | libnvidia-*) ;;
    libcudnn.so.*) [ "$without_nvidia" = yes ] || cp -L "$(dirname "$(realpath "$library")")"/libcudnn*.so.* "$folder/lib/" ;;
    libnvrtc.so.*) [ "$without_nvidia" = yes ] || cp -L "$(dirname "$(realpath "$library")")"/libnvrtc*.so.* "$folder/lib/" ;;
    libcudart.so.* | libcublas* | libnccl.so.*) [ "$without_nvidia" = yes ] || cp -L "$library" "$folder/lib/" ;;
    libmpi*) [[ $library = */"$mpi"/* ]] || fail "Open MPI 5 cannot take the place of ${library##*/}, which the programs are linked with" ;;
    *) [[ $library = */"$mpi"/* ]] || cp -L "$library" "$folder/lib/" ;;
  esac
done
mkdir -p "$folder/lib/mpi/bin" "$folder/lib/mpi/lib"
for tool in mpirun ompirun_wrapper prte prted prterun; do cp "$mpi/bin/$tool" "$folder/lib/mpi/bin/"; done
cp -r "$mpi/etc" "$mpi/share" "$folder/lib/mpi/"
cp -r "$mpi"/lib/lib*.so* "$mpi/lib/openmpi" "$folder/lib/mpi/lib/"

for program in "${programs[@]}"; do
  mkdir -p "$folder/$(dirname "$program")"
  strip -o "$folder/$program" "$program"
done
cp "$build/gpu_tests/list.txt" "$folder/$build/gpu_tests/"
cp -r configs launch "$folder/"
mkdir -p "$folder/tests/bench" "$folder/tests/gpu"
cp tests/gpu/*.sh tests/gpu/*.py "$folder/tests/gpu/"
cp tests/bench/*.py "$folder/tests/bench/"
if [ "$without_golden" = no ]; then mkdir -p "$folder/tests/golden" && cp tests/golden/*.h5 "$folder/tests/golden/"; fi
git describe --always --dirty >"$folder/revision.txt" 2>/dev/null || echo unknown >"$folder/revision.txt"
# Kernels are in many programs, which xz finds where its window takes several of them.
XZ_OPT='--lzma2=preset=6,dict=64MiB' tar caf "$file" -C "$folder" --owner=0 --group=0 -- "$build" lib configs launch tests revision.txt
echo "packed ${#programs[@]} programs and $(find "$folder/lib" -maxdepth 1 -name '*.so*' | wc -l) libraries into $file," \
  "$(du -sh "$folder" | cut -f 1), packed $(($(stat -c %s "$file") / 1024 / 1024 + 1)) MiB"
