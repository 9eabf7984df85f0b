# SPDX-License-Identifier: GPL-2.0-or-later
# Sourced by ./run and ./check: installs what is missing, configures a build folder. Says what it does.

# need_packages FILE...: every package named in the files is installed, or the list is printed.
need_packages() {
    packages=$(sed -e 's/#.*//' -e 's/ .*//' "$@" | grep . | sort -u)
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        have_tools && return 0
        echo "This is not Debian: install the equivalents of these packages, then run this again:"
        echo "$packages" | tr '\n' ' '
        echo
        exit 1
    fi
    missing=
    for p in $packages; do
        dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -q '^installed$' || missing="$missing $p"
    done
    [ -z "$missing" ] && return 0
    echo "Installing Debian packages:$missing"
    sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "Need root or sudo for that."; exit 1; }
        sudo=sudo
    fi
    $sudo env DEBIAN_FRONTEND=noninteractive sh -c "
        apt-get -qq install -y --no-install-recommends $missing >/dev/null 2>&1 ||
        { apt-get -qq update && apt-get -qq install -y --no-install-recommends $missing >/dev/null; }" ||
        { echo "Could not install:$missing"; exit 1; }
}

# On another distribution: good enough to try without asking again?
have_tools() {
    command -v meson >/dev/null && command -v ninja >/dev/null && command -v cc >/dev/null &&
        pkg-config --exists glib-2.0 json-glib-1.0 liburing slirp gnutls nettle libdeflate libzstd expat
}

# build FOLDER [--suite=NAME] [meson options...]: configured once, built quietly; a failure shows its output.
# With a suite, just what its tests need.
build() {
    folder=$1
    shift
    suite=
    targets=
    case ${1-} in --suite=*) suite=${1#--suite=}; shift ;; esac
    if [ ! -e "$folder/build.ninja" ]; then
        meson setup "$folder" "$@" >"$folder.log" 2>&1 || { cat "$folder.log"; rm -f "$folder.log"; exit 1; }
        rm -f "$folder.log"
    fi
    if [ -n "$suite" ]; then
        ninja -C "$folder" build.ninja >"$folder/build.log" 2>&1 || { cat "$folder/build.log"; exit 1; }
        targets=$(tools/suite-targets "$folder" "$suite") || { echo "$folder has no test of the suite $suite."; exit 1; }
    fi
    # shellcheck disable=SC2086
    ninja -C "$folder" $targets >"$folder/build.log" 2>&1 || { grep -vE '^\[[0-9]+/[0-9]+\]' "$folder/build.log"; exit 1; }
    ! grep -E 'warning:' "$folder/build.log" || { echo "The build has warnings."; exit 1; }
}
