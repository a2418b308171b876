# Sourced by quickstart.sh, test.sh and .ci/run: installs Debian packages that are not there yet.

# What building and running quern takes.
QUERN_PACKAGES="g++ cmake ninja-build libfmt-dev libsentencepiece-dev nlohmann-json3-dev libcli11-dev"
# What its tests and benchmarks take beside that.
QUERN_TEST_PACKAGES="libgtest-dev libbenchmark-dev"
# What the checks of .ci/run take beside that.
QUERN_CHECK_PACKAGES="clang-14 clang-format-14 libomp-14-dev"

say() { printf '\n== %s\n' "$*"; }

is_installed() {
  [ "$(dpkg-query -W -f='${Status}' "$1" 2>/dev/null)" = "install ok installed" ]
}

# install_packages NAME...   Does nothing when all are installed; sudo when not root.
install_packages() {
  missing=
  for package in "$@"; do
    is_installed "$package" || missing="$missing $package"
  done
  if [ -z "$missing" ]; then
    echo "packages: all there"
    return
  fi
  if ! command -v apt-get >/dev/null; then
    echo "error: these Debian packages are needed, and there is no apt-get to install them:$missing" >&2
    exit 1
  fi
  as_root=
  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "error: not root and no sudo; as root, run: apt-get install$missing" >&2
      exit 1
    fi
    as_root=sudo
  fi
  say "Installing$missing"
  $as_root apt-get update -q
  # shellcheck disable=SC2086  # the list is to be split
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
}
