# Set-up shared by ./demo and ./test; sourced by both from the top of the checkout (POSIX sh).
#
#   prepare_root            sets $as_root: empty for root, "sudo" for others; stops if neither works
#   prepare_packages P...   installs what is missing of the distribution's packages, after asking
#   prepare_python LOCK     makes .venv with the locked Python packages of requirements/LOCK
#
# Set before: $assume_yes (yes or no). Everything is quick the second time.

python=.venv/bin/python

say() { printf '%s\n' "$*" >&2; }
die() { say "$0: $*"; exit 1; }

ask() {
    [ "$assume_yes" = yes ] && return 0
    [ -t 0 ] || die "nobody to ask; run it again as: $0 --yes"
    printf '%s [Y/n] ' "$1" >&2
    read -r answer || die "no answer"
    case $answer in '' | y | Y | yes) return 0 ;; esac
    die "nothing was installed"
}

prepare_root() {
    as_root=
    [ "$(id -u)" -eq 0 ] && return 0
    command -v sudo >/dev/null 2>&1 ||
        die "this needs root, and sudo is not installed; as root (su -) run: $PWD/${0#./}"
    as_root=sudo
    sudo -v || die "sudo did not let you become root"
}

# Prints those of the named packages that are not installed. `NAME?` counts only where the
# distribution has such a package: newer ones split what older ones have in one.
missing_packages() {
    for package in "$@"; do
        name=${package%\?}
        status=$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) || status=
        [ "$status" = installed ] && continue
        [ "$name" = "$package" ] || apt-cache show "$name" >/dev/null 2>&1 || continue
        printf '%s ' "$name"
    done
}

prepare_packages() {
    command -v apt-get >/dev/null 2>&1 ||
        die "only Debian, Ubuntu and their relatives are set up by this script; install the
counterparts of these packages yourself, then run it again: $*"
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    say "These packages of your distribution are missing:"
    say "  $missing"
    ask "Install them with apt-get?"
    log=$(mktemp)
    say "Fetching the lists of packages ..."
    $as_root apt-get update >"$log" 2>&1 || { tail -n 5 "$log" >&2; die "apt-get update failed"; }
    missing=$(missing_packages "$@") # again: now it is known what the distribution has
    for package in $missing; do
        apt-cache show "$package" >/dev/null 2>&1 ||
            die "your distribution has no package $package; kvmnet needs Debian 12, Ubuntu 24.04 or newer"
    done
    say "Installing (a minute or two) ..."
    # Nothing that is installed here may start a service on this machine: the lab starts its own.
    # shellcheck disable=SC2086 # the names are meant to be split
    $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y --no-install-recommends $missing >"$log" 2>&1 ||
        { tail -n 15 "$log" >&2; die "apt-get install failed (all of its output: $log)"; }
    rm -f "$log"
}

prepare_python() {
    /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "Python 3.11 or newer is needed; this is $(/usr/bin/python3 --version 2>&1)"
    stamp=.venv/$1.stamp
    have=$(cat "$stamp" 2>/dev/null) || have=
    want="$(/usr/bin/python3 --version) $PWD $(cksum <"requirements/$1" | tr ' ' -) $(cksum <pyproject.toml | tr ' ' -)"
    if [ "$have" = "$want" ] && [ -x "$python" ]; then
        compile_sources
        return 0
    fi
    say "Making the Python environment in .venv ..."
    # The distribution's packages stay visible: libvirt's binding has to match its library.
    /usr/bin/python3 -m venv --system-site-packages .venv || die "no virtual environment could be made"
    "$python" -m pip install --quiet --disable-pip-version-check --ignore-installed \
        --require-hashes -r "requirements/$1" ||
        die "the Python packages could not be fetched; look at pip's message above"
    echo "$PWD/src" >"$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/kvmnet-source.pth"
    cat >.venv/bin/kvmnet <<SCRIPT
#!$PWD/$python
from kvmnet.cli.main import run
run()
SCRIPT
    chmod +x .venv/bin/kvmnet
    printf '%s' "$want" >"$stamp"
    compile_sources
}

# As the owner of the checkout: what runs as root later leaves no files in it.
compile_sources() { "$python" -m compileall -q src || die "the sources could not be compiled"; }
