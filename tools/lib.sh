# Set-up shared by the scripts in this folder: a virtual environment, the compiler that llama.cpp
# needs, bubblewrap. Sourced with `root` set to the repository. Quiet and quick once done; nothing
# here reads standard input or writes to standard output.

venv="$root/.venv"

say() { printf 'qwenterm: %s\n' "$*" >&2; }
die() { say "$*"; exit 3; }

# ensure_environment KIND: KIND is `run` or `dev`. The stamp says that a set-up came to its end.
ensure_environment() {
  local stamp="$venv/.ready-$1"
  if [[ "$stamp" -nt "$root/pyproject.toml" && -x "$venv/bin/qwenterm" ]]; then return; fi
  mkdir -p "$venv"
  exec 9> "$venv/.lock"
  if command -v flock > /dev/null && ! flock -n 9; then
    say "another set-up is at work here; waiting for it"
    flock 9
  fi
  # While waiting, the other one may have done it.
  if [[ ! ( "$stamp" -nt "$root/pyproject.toml" && -x "$venv/bin/qwenterm" ) ]]; then
    set_up "$1" < /dev/null >&2
    # What developers need contains what running needs.
    : > "$venv/.ready-run"
    : > "$stamp"
  fi
  exec 9>&-
}

set_up() {
  local python extra=""
  python="$(find_python)" || die "Python 3.10 or newer is needed; install it (Debian: apt install python3)"
  system_packages "$python"
  say "setting up in .venv (once; llama.cpp is compiled, which takes some minutes)"
  if ! "$venv/bin/python" -m pip --version > /dev/null 2>&1; then
    "$python" -m venv "$venv" || die "could not make a virtual environment in $venv"
  fi
  if [[ "$1" == dev ]]; then extra="[dev]"; fi
  if has_cuda; then
    say "an NVIDIA GPU and nvcc are here: building with CUDA"
    export CMAKE_ARGS="${CMAKE_ARGS:--DGGML_CUDA=on}"
  fi
  # `compat` puts the folder itself on the path: no import hook to load at each start.
  with_log "$venv/setup.log" "$venv/bin/python" -m pip install --disable-pip-version-check \
    --config-settings editable_mode=compat --editable "$root$extra" ||
    die "installing failed; the whole log is in $venv/setup.log"
  say "ready"
}

find_python() {
  local name
  for name in python3 python3.13 python3.12 python3.11 python3.10 python; do
    if command -v "$name" > /dev/null &&
      "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null; then
      command -v "$name"
      return
    fi
  done
  return 1
}

# What pip cannot bring: installed where this user may, named where not.
system_packages() {
  local wanted=()
  "$1" -c 'import ensurepip, venv' 2> /dev/null || wanted+=(python3-venv)
  "$1" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || wanted+=(python3-dev)
  if ! command -v c++ > /dev/null || ! command -v cc > /dev/null; then wanted+=(g++ make); fi
  command -v git > /dev/null || wanted+=(git)
  if [[ "$(uname -s)" == Linux ]] && ! command -v bwrap > /dev/null; then wanted+=(bubblewrap); fi
  if ((${#wanted[@]} == 0)); then return; fi
  if command -v apt-get > /dev/null && as_root true 2> /dev/null; then
    say "installing ${wanted[*]}"
    if with_log /dev/null as_root apt-get install -y -q --no-install-recommends "${wanted[@]}"; then
      return
    fi
    # An old package list is the usual reason.
    if with_log /dev/null as_root apt-get update -q &&
      with_log /dev/null as_root apt-get install -y -q --no-install-recommends "${wanted[@]}"; then
      return
    fi
  fi
  if [[ "${wanted[*]}" == bubblewrap ]]; then
    say "bubblewrap is missing and could not be installed here: commands run under Landlock alone,"
    say "which sees the whole process list and the host's /tmp; 'apt install bubblewrap' mends it"
    return
  fi
  die "please install ${wanted[*]} (Debian: apt install ${wanted[*]}) and run this again"
}

as_root() {
  if [[ "$(id -u)" == 0 ]]; then
    env DEBIAN_FRONTEND=noninteractive "$@"
  else
    sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
  fi
}

# A GPU build needs the compiler and a working driver; one alone would build what cannot run.
has_cuda() {
  command -v nvcc > /dev/null && command -v nvidia-smi > /dev/null && nvidia-smi -L > /dev/null 2>&1
}

# with_log FILE COMMAND...: run it; a terminal sees the time go by, a failure shows the log's end.
with_log() {
  local log="$1" started=$SECONDS status=0 job
  shift
  local output="$log"
  if [[ "$log" == /dev/null ]]; then output="$(mktemp)"; fi
  "$@" > "$output" 2>&1 9>&- &
  job=$!
  trap 'kill "$job" 2> /dev/null; exit 130' INT TERM
  if [[ -t 2 ]]; then
    while kill -0 "$job" 2> /dev/null; do
      printf '\r  %d s ' $((SECONDS - started)) >&2
      sleep 1
    done
    printf '\r\033[K' >&2
  fi
  wait "$job" || status=$?
  trap - INT TERM
  if ((status != 0)); then tail -n 25 "$output" >&2; fi
  if [[ "$log" == /dev/null ]]; then rm -f "$output"; fi
  return "$status"
}
