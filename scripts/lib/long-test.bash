# Sourced by scripts that run one long test of tests/it: scripts/chaos, scripts/bench-quota.

# long_test NAME: builds and runs the ignored test, and exits with its code. A signal to the script ends
# all of it, and nothing is left behind.
long_test() {
  local name=$1
  need_compiler
  need_postgres
  cargo test --locked --workspace --all-features --test it --no-run

  # Everything that the test leaves for a moment is in here. The database's owner must get in.
  work=$(mktemp -d "/tmp/apipayd-$(basename "$0").XXXXXX")
  chmod 711 "$work"
  export TMPDIR="$work"
  running=
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP

  # A process group of its own, so that a signal to this script alone ends all of it too.
  set -m
  cargo test --locked --quiet --workspace --all-features --test it -- --ignored --exact "$name" --nocapture &
  running=$!
  wait "$running"
}

clean_up() {
  local code=$?
  trap - EXIT INT TERM HUP
  if [[ -n "$running" ]] && kill -KILL -- "-$running" 2>/dev/null; then
    wait "$running" 2>/dev/null || true
  fi
  # The daemons went with the test; a database does not.
  for cluster in "$work"/apipayd-it-*/; do
    [[ ! -d "$cluster/data" ]] || scripts/throwaway-postgres remove "${cluster%/}"
  done
  rm -rf "$work"
  exit "$code"
}

# number FLAG VALUE: the value, if it is a number that makes sense.
number() {
  [[ "$2" =~ ^(0|[1-9][0-9]{0,9})$ ]] || wrong "$1 takes a whole number of at most ten digits, not '$2'"
  echo "$2"
}

wrong() {
  echo "scripts/$(basename "$0"): $*; see scripts/$(basename "$0") --help" >&2
  exit 2
}
