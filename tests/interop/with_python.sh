#!/bin/sh
# with_python.sh SCRIPT ARGUMENTS...   Runs SCRIPT with $QUERN_INTEROP_PYTHON, or python3; exits with 77, which
# ctest counts as skipped, where there is none.
set -eu
python=${QUERN_INTEROP_PYTHON:-python3}
if ! command -v "$python" >/dev/null 2>&1; then
  echo "skipped: no $python here"
  exit 77
fi
exec "$python" "$@"
