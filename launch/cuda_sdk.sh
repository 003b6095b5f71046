#!/usr/bin/env bash
# Puts what the CUDA backend is built with, and this system may lack, into build/cuda: nvcc and the runtime, cuBLAS, NCCL,
# cuDNN with its frontend, nvrtc and cuobjdump, from NVIDIA's packages on PyPI. Nothing else is touched. Does nothing when it is
# there. A system's own nvcc of CUDA 13 is kept; docs/cuda.md tells how a site's modules are used instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

libraries=(
  nvidia-cublas==13.1.1.3
  nvidia-nccl-cu13==2.30.7
  nvidia-cudnn-cu13==9.24.0.43
  nvidia-cudnn-frontend==1.32.0
  nvidia-cuda-nvrtc==13.0.88
  nvidia-cuda-cuobjdump==13.2.51
)
compiler=(
  nvidia-cuda-nvcc==13.0.88
  nvidia-nvvm==13.0.88
  nvidia-cuda-crt==13.0.88
  nvidia-cuda-runtime==13.0.96
  nvidia-cuda-cccl==13.0.85
)

usage() {
  cat <<'END'
usage: launch/cuda_sdk.sh [--with-nvcc] [--without-nvcc]
  --with-nvcc      also nvcc and the runtime, though the system has an nvcc
  --without-nvcc   the libraries alone
By default nvcc comes along where there is none of CUDA 13. Up to 2 GB are downloaded.
END
}

# A toolkit of another major version does not go with these libraries.
system_has_nvcc() {
  local nvcc
  nvcc=$(command -v nvcc || true)
  for nvcc in "$nvcc" "${CUDA_HOME:-}/bin/nvcc" /usr/local/cuda/bin/nvcc; do
    if [ -x "$nvcc" ] && "$nvcc" --version | grep 'release 13\.' >/dev/null; then return 0; fi
  done
  return 1
}

if system_has_nvcc; then with_nvcc=no; else with_nvcc=yes; fi
while [ $# -gt 0 ]; do
  case $1 in
    --with-nvcc) with_nvcc=yes ;;
    --without-nvcc) with_nvcc=no ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

packages=("${libraries[@]}")
[ "$with_nvcc" = no ] || packages+=("${compiler[@]}")
folder=build/cuda
wanted="${packages[*]}"
if [ "$(cat "$folder/installed" 2>/dev/null)" = "$wanted" ]; then exit 0; fi
python=$(command -v python3) || { echo "cuda sdk: needs python3 with pip" >&2; exit 1; }
if ! "$python" -m pip --version >/dev/null 2>&1; then
  # Debian's python3 has no pip; a virtual environment brings one.
  "$python" -m venv build/cuda-pip || { echo "cuda sdk: needs pip, or python3-venv to get it" >&2; exit 1; }
  python=build/cuda-pip/bin/python
fi
echo "cuda sdk: installing $wanted into $folder"
# What is there stays until all of the new is: a download that breaks off costs no build.
rm -rf "$folder.new" "$folder.old"
"$python" -m pip install --quiet --no-input --disable-pip-version-check --no-deps --target "$folder.new" "${packages[@]}"
echo "$wanted" >"$folder.new/installed"
if [ -e "$folder" ]; then mv "$folder" "$folder.old"; fi
mv "$folder.new" "$folder"
rm -rf "$folder.old"
