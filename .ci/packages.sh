# shellcheck shell=sh
# Sourced by quickstart.sh, test.sh and .ci/run: installs the Debian packages that are not there yet.

say() { printf '\n== %s\n' "$*"; }

# packages_of GROUP   The names of a group's packages.
packages_of() {
  case $1 in
    build) echo g++ cmake ninja-build libfmt-dev libsentencepiece-dev libpcre2-dev nlohmann-json3-dev libcli11-dev \
      libedit-dev libboost-dev libxxhash-dev ;;
    chat) echo python3-pip ;;
    test) echo libgtest-dev libbenchmark-dev libopenblas-dev python3 binutils ;;
    check) echo clang-14 clang-format-14 clang-tidy-14 libomp-14-dev git python3-venv python3-dev ;;
    aarch64) echo g++-aarch64-linux-gnu qemu-user-static googletest ;;
  esac
}

is_installed() {
  [ "$(dpkg-query -W -f='${Status}' "$1" 2>/dev/null)" = "install ok installed" ]
}

# install_packages GROUP...   Does nothing when all are installed; uses sudo when not root.
install_packages() {
  missing=
  for group in "$@"; do
    for package in $(packages_of "$group"); do
      is_installed "$package" || missing="$missing $package"
    done
  done
  if [ -z "$missing" ]; then
    echo "all installed"
    return
  fi
  if ! command -v apt-get >/dev/null; then
    echo "error: these Debian packages are needed, and there is no apt-get to install them:$missing" >&2
    exit 1
  fi
  as_root=
  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "error: neither root nor sudo; as root, run: apt-get install$missing" >&2
      exit 1
    fi
    as_root=sudo
  fi
  echo "installing$missing"
  $as_root apt-get update -q
  # shellcheck disable=SC2086  # a list, to be split
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
}
