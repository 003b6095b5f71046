#!/usr/bin/env bash
# Packs what tests/gpu/run_all.sh needs on a machine that cannot build: tests/gpu/pack.sh FILE.tar BUILD_FOLDER. Of libraries
# all that the programs load but the C library's own, which is the machine's, and the driver's, which comes with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
file=$(realpath -m "$1") build=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

programs=("$build/redllm-cuda")
while read -r test _; do
  if [ -x "$build/gpu_tests/$test" ]; then programs+=("$build/gpu_tests/$test"); fi
done <"$build/gpu_tests/list.txt"
mkdir -p "$folder/lib"
libraries_of() { ldd "$@" | sed -n 's/.* => \(\/.*\) (0x.*/\1/p' | sort -u; }

# Some are found by name while they run: cuDNN's engines and NVRTC's builtins lie beside them.
for library in $(libraries_of "${programs[@]}"); do
  case ${library##*/} in
    libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | ld-linux* | libcuda.so.* | libnvidia-*) ;;
    libcudnn.so.*) cp -L "$(dirname "$(realpath "$library")")"/libcudnn*.so.* "$folder/lib/" ;;
    libnvrtc.so.*) cp -L "$(dirname "$(realpath "$library")")"/libnvrtc*.so.* "$folder/lib/" ;;
    *) cp -L "$library" "$folder/lib/" ;;
  esac
done
plugins=$(dirname "$(ldd "${programs[0]}" | sed -n 's/.*libmpi\.so.* => \(\/[^ ]*\).*/\1/p')")/openmpi
plugins=$({ find -L "$plugins" /usr/lib*/*/openmpi/lib/openmpi* -maxdepth 1 -name 'mca_*.so' -printf '%h\n' 2>/dev/null || true; } |
  sort -u | head -n 1)
if [ -n "$plugins" ]; then cp -rL "$plugins" "$folder/lib/openmpi"; fi
# What those need that the programs do not.
mapfile -t found < <(find "$folder/lib" -name '*.so*')
for library in $(LD_LIBRARY_PATH="$folder/lib" libraries_of "${found[@]}"); do
  case ${library##*/} in
    libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | ld-linux* | libcuda.so.* | libnvidia-*) ;;
    *) [ -e "$folder/lib/${library##*/}" ] || cp -L "$library" "$folder/lib/" ;;
  esac
done
tar cf "$file" "${programs[@]}" "$build/gpu_tests/list.txt" configs launch tests/gpu tests/bench/*.py tests/golden/*.h5
git describe --always --dirty >"$folder/revision.txt" 2>/dev/null || echo unknown >"$folder/revision.txt"
tar rf "$file" -C "$folder" lib revision.txt
echo "packed ${#programs[@]} programs and $(find "$folder/lib" -name '*.so*' | wc -l) libraries into $file, $(du -h "$file" | cut -f 1)"
