# Sourced by other scripts: Debian packages that are missing.

# need COMMAND PACKAGE: notes that PACKAGE has to be installed when COMMAND is not there.
MISSING_PACKAGES=()
need() {
    # Some commands live in sbin, which is not on everybody's PATH.
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || MISSING_PACKAGES+=("$2")
}

# Installs what was noted, or says what to install.
install_missing() {
    [ ${#MISSING_PACKAGES[@]} -gt 0 ] || return 0
    local root=()
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
            echo "missing packages: ${MISSING_PACKAGES[*]}" >&2
            echo "install them, or run this as root: apt-get install ${MISSING_PACKAGES[*]}" >&2
            return 1
        fi
        root=(sudo)
    fi
    if ! command -v apt-get >/dev/null; then
        echo "missing: ${MISSING_PACKAGES[*]} (Debian's names); install them with your package manager" >&2
        return 1
    fi
    echo "installing what is missing: ${MISSING_PACKAGES[*]}"
    "${root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends \
        "${MISSING_PACKAGES[@]}" >/dev/null
}

# Fails unless there is a Rust toolchain to build with.
need_rust() {
    # rustup's folder is not on the PATH of shells that were started before it.
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    if ! command -v cargo >/dev/null; then
        echo "Rust is missing: install it from https://rustup.rs (1.95 or later)" >&2
        return 1
    fi
}
