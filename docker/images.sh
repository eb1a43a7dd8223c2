#!/bin/bash
# Build the images of the client and the side-car: with docker or podman from the registry's base image, or with buildah
# from a base made by debootstrap (BASE=debootstrap), for machines that can reach Debian packages but no registry.
set -euo pipefail
cd "$(dirname "$0")/.."
base=${BASE:-registry}
build=build/images
mkdir -p "$build"
test -d build/weights -a -d build/models || {
    echo "error: no weights in build/: run \`python -m export fetch --judges\`" >&2
    exit 1
}

# Pass this machine's pip configuration to the build as a secret, so that it stays out of the images.
python3 -m pip config list | sed -n "s/^\(global\|:env:\)\.\([a-z-]*\)='\(.*\)'$/\2 = \3/p" |
    sort -u -t= -k1,1 | { echo "[global]"; cat; } >"$build/pip.conf"
trap 'rm -f "$build/pip.conf"' EXIT
options=(--secret "id=pip,src=$build/pip.conf")
# Mount the folders of packages and certificates that it names.
volumes=()
while read -r place; do
    test ! -e "$place" || volumes+=(--volume "$place:$place:ro")
done < <(grep -o '/[^ ]*' "$build/pip.conf" | grep -v // | sed 's|/simple$||' | sort -u)

if [ "$base" = debootstrap ]; then
    # Chroot isolation needs no mounts, and vfs no overlay support in the kernel.
    tool=(buildah --root "$PWD/$build/storage" --runroot "$PWD/$build/run" --storage-driver vfs)
    if ! "${tool[@]}" inspect --type image localhost/python >/dev/null 2>&1; then
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$build/root" >"$build/debootstrap.log"
        rm -rf "$build"/root/var/cache/apt/archives/*.deb "$build"/root/var/lib/apt/lists/*
        container=$("${tool[@]}" from scratch)
        "${tool[@]}" add --quiet "$container" "$build/root" / >/dev/null
        "${tool[@]}" commit --quiet --rm "$container" localhost/python >/dev/null
        rm -rf "$build/root"
    fi
    # Take PyTorch from the index of this machine's pip.
    options+=(--isolation chroot --format docker --build-arg PYTHON=localhost/python --build-arg TORCH_INDEX=)
    command=("${tool[@]}" bud "${options[@]}" "${volumes[@]}")
else
    engine=$(command -v docker || command -v podman)
    command=("$engine" build "${options[@]}")
fi
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
for image in ${IMAGES:-client sidecar}; do
    "${command[@]}" --tag "unaligned/$image:$version" --file "docker/$image/Dockerfile" .
done
if [ "$base" = debootstrap ]; then
    "${tool[@]}" images
fi
