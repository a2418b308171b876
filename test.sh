#!/bin/sh
# Installs what is missing, builds a release and runs every test.
set -eu
cd "$(dirname "$0")"
. .ci/packages.sh

say "Packages"
install_packages build test
say "Building a release in build/release"
cmake --preset release -DQUERN_TESTS=ON -DQUERN_BENCH=ON  # quickstart.sh leaves them out
cmake --build --preset release
say "Running every test"
.ci/tests build/release
