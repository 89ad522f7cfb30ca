#!/bin/sh
# ensure_gl.sh PYTHON: if no headless OpenGL draws a frame, install one through the system's package
# manager when that needs no password; otherwise print the exact command. Always exits 0: whatever
# needs no rendering works without.
set -u
python=$1

draws() {
    "$python" -c 'from tubelet.envs.rendering import probe_gl; probe_gl()' >/dev/null 2>&1
}

draws && exit 0

if command -v apt-get >/dev/null 2>&1; then
    install="apt-get install -y --no-install-recommends libegl1 libgl1 libgl1-mesa-dri"
    prepare="apt-get update"
elif command -v dnf >/dev/null 2>&1; then
    install="dnf install -y mesa-libEGL mesa-libGL mesa-dri-drivers"
    prepare=true
elif command -v apk >/dev/null 2>&1; then
    install="apk add mesa-egl mesa-gl mesa-dri-gallium"
    prepare=true
elif command -v brew >/dev/null 2>&1; then
    install="brew install mesa"
    prepare=true
else
    echo "No headless OpenGL works here: install Mesa's EGL or OSMesa library, then run" \
        "'tubelet doctor'." >&2
    exit 0
fi

if [ "${install#brew}" != "$install" ] || [ "$(id -u)" = 0 ]; then
    as=""
elif sudo -n true >/dev/null 2>&1; then
    as="sudo -n"
else
    echo "No headless OpenGL works here. Install one, then go on:" >&2
    [ "$prepare" = true ] || echo "  sudo $prepare" >&2
    echo "  sudo $install" >&2
    exit 0
fi

echo "no headless OpenGL works here; installing one: $as $install"
if $as $prepare >/dev/null && $as $install >/dev/null && draws; then
    echo "rendering works now"
else
    echo "Rendering still does not work; 'tubelet doctor' says why." >&2
fi
exit 0
