#!/usr/bin/env bash
# The one place that names Python packages: what tests read our files back with and Debian does not have. They go into a
# virtual environment in the build folder, build/python; nothing else is touched. Does nothing when they are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(tensorboard==2.21.0)

if [ $# -gt 0 ]; then
  echo "usage: launch/python_packages.sh" >&2
  exit 2
fi
folder=build/python
wanted="${packages[*]}"
if [ "$(cat "$folder/installed" 2>/dev/null)" = "$wanted" ]; then exit 0; fi
echo "python packages: installing $wanted into $folder"
rm -rf "$folder"
/usr/bin/python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --no-input --disable-pip-version-check "${packages[@]}"
echo "$wanted" >"$folder/installed"
