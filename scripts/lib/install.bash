# Installs what is missing, asking for nothing. For scripts to source; uses Debian's packages.

as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  elif sudo -n true 2>/dev/null; then
    sudo -n "$@"
  else
    return 1
  fi
}

# Installs packages, or says which ones a human has to install.
install_packages() {
  if ! command -v apt-get >/dev/null; then
    echo "missing: $*. This is no Debian: install what corresponds to these packages, then run this again." >&2
    return 1
  fi
  if ! as_root true; then
    echo "missing: $*. This user may not install packages; run: sudo apt-get install $*" >&2
    return 1
  fi
  echo "installing $* …"
  local log
  log=$(mktemp)
  # The lists of packages may be old, or not there at all.
  if ! { as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
    { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }; } \
    </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

# A Postgres server to start clusters from; none of the system's own is started.
need_postgres() {
  local found
  if found=$(scripts/throwaway-postgres bin); then
    echo "Postgres server programs: $found"
    return
  fi
  install_packages postgresql-common || return
  # Without this the package starts a server for the whole machine, which nobody asked for.
  local quiet=/etc/postgresql-common/createcluster.d/throwaway.conf
  as_root mkdir -p "${quiet%/*}"
  echo "create_main_cluster = false" | as_root tee "$quiet" >/dev/null
  local done=0
  install_packages postgresql || done=$?
  as_root rm -f "$quiet"
  as_root rmdir --ignore-fail-on-non-empty "${quiet%/*}"
  return "$done"
}

# A pooler for tests. The package would start one for the whole machine, now and whenever it starts.
need_pgbouncer() {
  PATH=$PATH:/usr/sbin command -v pgbouncer && return
  local policy=/usr/sbin/policy-rc.d ours=false done=0
  if [[ ! -e "$policy" ]] && as_root true; then
    ours=true
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod +x "$policy"
  fi
  install_packages pgbouncer || done=$?
  ! $ours || as_root rm -f "$policy"
  ((done)) || ! command -v systemctl >/dev/null || as_root systemctl --quiet disable pgbouncer || true
  return "$done"
}

# What sets a test's clock.
need_faketime() {
  ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null || install_packages libfaketime
}

# What Rust's crates are linked and built with.
need_compiler() {
  command -v cc >/dev/null || install_packages gcc libc6-dev
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  found=$(cargo --version 2>/dev/null | cut -d ' ' -f 2)
  if [[ -z "$found" || $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) != "$wanted" ]]; then
    echo "missing: Rust $wanted or newer (found: ${found:-none}); see https://rustup.rs" >&2
    return 1
  fi
}
