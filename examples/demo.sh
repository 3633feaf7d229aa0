#!/bin/bash
# Run a small container in a virtual machine of its own, and show that it is one.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
kata=$here/../bin/kata
image=$here/../build/busybox-image
mkdir -p "$here/../build"
"$here/make_busybox_image.py" "$image"

facts='uname -r; cat /proc/1/comm; grep MemTotal: /proc/meminfo'
table() { # the lines of facts, host's and container's, side by side
    local names=("kernel" "PID 1" "memory") i
    printf '%-10s %-26s %s\n' "" "this machine" "inside the container"
    for i in 0 1 2; do
        printf '%-10s %-26s %s\n' "${names[i]}" "${host[i]}" "${guest[i]}"
    done
}

# the first start of all makes the template that others are copied from
"$kata" run --rm --network none "oci:$image" true

timing=$(mktemp)
trap 'rm -f "$timing"' EXIT
echo "\$ kata run --rm --timing oci:build/busybox-image sh -c '$facts'"
mapfile -t host < <(sh -c "$facts" | sed 's/MemTotal: *//')
inside=$("$kata" run --rm --network none --timing "oci:$image" sh -c "$facts" 2>"$timing") || {
    cat "$timing" >&2
    exit 1
}
mapfile -t guest < <(sed 's/MemTotal: *//' <<<"$inside")
echo
table
echo
echo "where the time went:"
cat "$timing"
