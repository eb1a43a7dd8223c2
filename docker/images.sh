#!/bin/bash
# Builds the images of the client and of the side-car: with docker or podman from the registry's base, or with buildah
# from a base that debootstrap makes (BASE=debootstrap), for machines that reach Debian's packages and no registry.
set -euo pipefail
cd "$(dirname "$0")/.."
base=${BASE:-registry}
build=build/images
mkdir -p "$build"
test -d build/weights -a -d build/models || {
    echo "error: There are no weights in build/: make invert, or python -m export fetch --judges, makes them." >&2
    exit 1
}

# What pip is told on this machine reaches the build as a secret, and so stays out of the images.
python3 -m pip config list | sed -n "s/^\(global\|:env:\)\.\([a-z-]*\)='\(.*\)'$/\2 = \3/p" |
    sort -u -t= -k1,1 | { echo "[global]"; cat; } >"$build/pip.conf"
trap 'rm -f "$build/pip.conf"' EXIT
options=(--secret "id=pip,src=$build/pip.conf")
# Folders of packages and certificates that it names.
volumes=()
while read -r place; do
    test ! -e "$place" || volumes+=(--volume "$place:$place:ro")
done < <(grep -o '/[^ ]*' "$build/pip.conf" | grep -v // | sed 's|/simple$||' | sort -u)

if [ "$base" = debootstrap ]; then
    # Chroot isolation has no mounts of its own, and vfs needs no kernel's overlay.
    tool=(buildah --root "$PWD/$build/storage" --runroot "$PWD/$build/run" --storage-driver vfs)
    if ! "${tool[@]}" inspect --type image localhost/python >/dev/null 2>&1; then
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$build/root" >"$build/debootstrap.log"
        rm -rf "$build"/root/var/cache/apt/archives/*.deb "$build"/root/var/lib/apt/lists/*
        container=$("${tool[@]}" from scratch)
        "${tool[@]}" add --quiet "$container" "$build/root" / >/dev/null
        "${tool[@]}" commit --quiet --rm "$container" localhost/python >/dev/null
        rm -rf "$build/root"
    fi
    # PyTorch comes from where this machine's pip finds it.
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
