#!/bin/sh
# The set-up of this machine, and its undoing. Safe to run again: what is there is left alone.
#
#   setup.sh           engine, compose plugin, .venv, images
#   setup.sh venv      .venv only; needs no engine
#   setup.sh undo      takes back what a set-up did, and nothing else
#
# Where a Docker engine answers, only Docker and .venv are touched. Else, on Debian or Ubuntu and as root, the
# packages and sources that are missing are listed, asked for (YES=1 answers), installed, and written down in
# $state, from which `undo` works. Anywhere else, one line says what to install.
# No host is named here: sources are made from the machine's own. $MQTEST_ROOT prefixes system files (tests).
set -eu
cd "$(dirname "$0")/.."
. compose/images/mirror.sh

root=${MQTEST_ROOT:-}
state=$root/var/lib/mqtest/installed
source_file=$root/etc/apt/sources.list.d/mqtest-trixie.sources
pin_file=$root/etc/apt/preferences.d/mqtest-trixie
pid_file=$root/run/mqtest-dockerd.pid
engine_log=$root/var/log/mqtest-dockerd.log

say() { printf 'set-up: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@"; }
is_root() { [ "$(id -u)" = 0 ]; }
engine_answers() { has docker && timeout 10 docker info >/dev/null 2>&1; }
compose_answers() { has docker && docker compose version >/dev/null 2>&1; }
record() { # record KIND VALUE: once
  mkdir -p "${state%/*}"
  grep -qxF "$1 $2" "$state" 2>/dev/null || printf '%s %s\n' "$1" "$2" >>"$state"
}
recorded() { sed -n "s/^$1 //p" "$state" 2>/dev/null || true; }

# --- what is missing ---

candidate() { # prints the version of package $1 that apt would install
  apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'
}

compose_package() { # prints the package with compose v2; one that only Debian trixie has as NAME/trixie
  for package in docker-compose-plugin docker-compose-v2 docker-compose; do
    case "$(candidate $package)" in
      '' | 0.* | 1.*) ;;
      *) echo $package; return ;;
    esac
  done
  [ -z "$(debian_mirror)" ] || echo docker-compose/trixie
}

image_there() { docker image inspect "$1" >/dev/null 2>&1; }

base_there() { # is there a Debian image to build upon, or can one be made without a package?
  image_there mqtest/base:trixie || image_there mqtest/debian:trixie || image_there debian:trixie-slim ||
    { is_root && has debootstrap && debian_keyring >/dev/null 2>&1; }
}

base_pulled() { # bounded, so that a network without the registry does not hold anyone up; 30 MB
  timeout 60 docker pull -q debian:trixie-slim >/dev/null 2>&1 &&
    docker tag debian:trixie-slim mqtest/debian:trixie && docker rmi debian:trixie-slim >/dev/null
}

missing() { # prints the packages that are missing, one a line
  engine_answers || has dockerd || echo docker.io
  # newer releases ship the client apart
  has docker || { [ -z "$(candidate docker-cli)" ] || echo docker-cli; }
  compose_answers || compose_package
  can_make_venv || echo python3-venv
}

can_make_venv() { [ -x .venv/bin/python ] || "$python" -c 'import ensurepip, venv' 2>/dev/null; }

# --- may we, and shall we ---

is_apt_machine() { has apt-get && has dpkg-query && grep -qE '^ID(_LIKE)?=.*(debian|ubuntu)' "$root/etc/os-release"; }

allow() { # allow WHAT…: only on a machine that we know how to change, and only when told to
  if ! is_apt_machine; then fail "this is no Debian or Ubuntu: install $* yourself, then try again"; fi
  if ! is_root; then fail "not root: have root install $*, or run this as root"; fi
  say "this machine lacks: $*"
  for package; do
    case $package in
      */trixie) say "source added for it: $(debian_mirror) trixie main, pinned at 100 so that nothing else comes from it" ;;
    esac
  done
  say "\`make uninstall\` takes all of it away again"
  [ "${YES:-}" = 1 ] && return
  [ -t 0 ] || fail "nobody to ask: run it with YES=1 to agree"
  printf 'install? [y/N] ' >&2
  read -r answer || answer=n
  case $answer in y | Y | yes) ;; *) fail "nothing was changed" ;; esac
}

# --- packages ---

installed() { dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' | sed -n 's/^ii *//p' | sort -u; }

add_trixie() {
  mirror=$(debian_mirror)
  mkdir -p "${source_file%/*}" "${pin_file%/*}"
  record file "$source_file"
  record file "$pin_file"
  printf 'Types: deb\nURIs: %s\nSuites: trixie\nComponents: main\nSigned-By: %s\n' \
    "$mirror" "$(debian_keyring)" >"$source_file"
  printf 'Package: *\nPin: release n=trixie\nPin-Priority: 100\n' >"$pin_file"
}

install() { # install PACKAGE…, and write down what came with them
  case " $* " in *'/trixie '*) add_trixie ;; esac
  case " $* " in
    *' docker.io '*)
      for folder in /var/lib/docker /var/lib/containerd /etc/docker; do
        [ -e "$root$folder" ] || record data "$root$folder"
      done
      ;;
  esac
  before=$(mktemp)
  installed >"$before"
  apt update || say "the package lists could not all be refreshed; going on"
  say "installing $*"
  status=0
  apt install -y --no-install-recommends "$@" >&2 || status=$?
  # also after a failure: what did get in has to come out again
  for package in $(installed | comm -13 "$before" -); do record package "$package"; done
  rm -f "$before"
  [ $status = 0 ] || fail "apt could not install $*: its message is above"
}

# --- the engine ---

is_alive() { # is_alive PID NAME: the name tells a recycled number, the missing program a zombie
  case "$(readlink "/proc/$1/exe" 2>/dev/null)" in */"$2" | */"$2 (deleted)") ;; *) return 1 ;; esac
}

forget_dead() { # forget_dead PIDFILE NAME: a file left by a killed process keeps the engine from starting
  [ ! -f "$1" ] || is_alive "$(cat "$1")" "$2" || rm -f "$1"
}

dockerd_starts() { # without an init system: by hand, and it outlives this terminal
  forget_dead "$pid_file" dockerd
  forget_dead /var/run/docker.pid dockerd
  forget_dead /var/run/docker/containerd/containerd.pid containerd
  # a socket that nobody listens on makes the engine wait for a containerd that is gone
  listening=
  for pid in $(pgrep -x containerd); do ! is_alive "$pid" containerd || listening=1; done
  [ -n "$listening" ] || rm -f /run/containerd/containerd.sock
  mkdir -p "${engine_log%/*}" "${pid_file%/*}"
  record engine "$pid_file"
  setsid dockerd --pidfile "$pid_file" >"$engine_log" 2>&1 </dev/null &
  started=$!
}

start_engine() {
  started=
  if [ -d "$root/run/systemd/system" ]; then systemctl start docker || true; else dockerd_starts; fi
  tries=0
  until engine_answers; do
    tries=$((tries + 1))
    if [ $tries -ge 60 ] || { [ -n "$started" ] && ! kill -0 "$started" 2>/dev/null; }; then
      fail "the Docker engine does not come up: $(tail -n 1 "$engine_log" 2>/dev/null || echo 'see its log')"
    fi
    sleep 0.5
  done
  say "the Docker engine is up"
}

ensure_host() {
  if engine_answers && compose_answers && can_make_venv; then :; else
    if [ -z "$(candidate docker.io)" ] && is_apt_machine && is_root; then
      say "reading package lists"
      apt update || true
    fi
    packages=$(missing)
    if [ -n "$packages" ]; then
      # shellcheck disable=SC2086  # a list of package names
      { allow $packages; install $packages; }
    fi
  fi
  if ! engine_answers; then
    if docker info 2>&1 | grep -q 'permission denied'; then
      fail "a Docker engine runs but not for this user: join the group docker, or be root"
    fi
    is_root || fail "the Docker engine is not running: have root start it"
    start_engine
  fi
  compose_answers || fail "docker compose (v2) does not answer: install the compose plugin for this engine's client"
  if ! base_there && ! base_pulled; then
    allow debootstrap debian-archive-keyring
    install debootstrap debian-archive-keyring
  fi
}

# --- the Python side ---

ensure_venv() {
  stamp=.venv/mqtest-stamp
  wanted=$(pwd; cat pyproject.toml)
  [ -x .venv/bin/python ] && [ "$(cat $stamp 2>/dev/null)" = "$wanted" ] && return
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is older than 3.11: install a newer one and name it, as in make PYTHON=python3.12"
  say "making .venv"
  [ -x .venv/bin/python ] || "$python" -m venv .venv || fail "$python cannot make .venv: install python3-venv"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
  printf '%s\n' "$wanted" >$stamp
}

# --- undo ---

undo_docker() {
  engine_answers || return 0
  # it also unmounts disks, detaches loop devices and ends processes
  [ -x .venv/bin/mqtest ] && { timeout 120 .venv/bin/mqtest down --all >&2 || say "mqtest down failed; going on"; }
  # one line an object: names of ours have no blanks
  for id in $(docker ps -aq --filter label=mqtest); do docker rm -f "$id" >/dev/null || true; done
  for id in $(docker network ls -q --filter label=mqtest); do docker network rm "$id" >/dev/null || true; done
  for id in $(docker volume ls -q --filter label=mqtest); do docker volume rm "$id" >/dev/null || true; done
  for id in $(docker images -q --filter reference='mqtest/*') $(docker images -q --filter label=mqtest); do
    docker rmi -f "$id" >/dev/null 2>&1 || true # gone with an image that was built upon it
  done
  say "Docker holds nothing of ours any more"
}

undo_route() { # the guard of the address pool, where `mqtest down` could not take it away
  has ip && is_root || return 0
  ip route show type unreachable 2>/dev/null | sed -n 's/^unreachable \(198\.1[89]\.[^ ]*\) metric 4294967295.*/\1/p' |
    while read -r pool; do ip route del unreachable "$pool" metric 4294967295; done
}

engine_is_empty() { [ -z "$(docker ps -aq)$(docker volume ls -q)$(docker images -q)" ]; }

check_packages() { # somebody may have come to need one of ours: removing it would take that along
  # shellcheck disable=SC2086  # a list of package names
  for package in $(apt -s remove $1 | sed -n 's/^Remv \([^ :]*\).*/\1/p' | sort -u); do
    case " $1 " in
      *" $package "*) ;;
      *) fail "$package needs what the set-up installed, so nothing is removed: remove it first, then try again" ;;
    esac
  done
}

stop_engine() {
  if [ -d "$root/run/systemd/system" ]; then
    [ -z "$(recorded package | grep -x docker.io)" ] || systemctl stop docker.socket docker || true
    return
  fi
  for file in $(recorded engine); do
    forget_dead "$file" dockerd
    [ -f "$file" ] || continue
    kill "$(cat "$file")"
    tries=0
    while [ -f "$file" ] && [ $tries -lt 60 ]; do tries=$((tries + 1)); sleep 0.5; done
    say "the engine that the set-up started is stopped"
  done
}

undo_host() {
  is_root || fail "the set-up changed this machine as root: undo it as root"
  packages=$(recorded package | tr '\n' ' ')
  [ -z "$packages" ] || check_packages "$packages"
  # purging docker.io wipes /var/lib/docker, so only where that came with us and holds nothing of anybody else
  verb=remove
  if ! engine_answers; then say "the engine does not answer, so its data is kept"
  elif ! engine_is_empty; then say "the engine holds things that are not ours, so its data is kept"
  elif recorded data | grep -qx "$root/var/lib/docker"; then verb=purge
  fi
  if [ -n "$packages" ] || [ -z "$(docker ps -q 2>/dev/null)" ]; then
    stop_engine
  else
    say "the engine goes on, since it runs containers that are not ours"
  fi
  if [ -n "$packages" ]; then
    say "removing $packages"
    # shellcheck disable=SC2086  # a list of package names
    apt $verb -y $packages >&2
  fi
  if [ $verb = purge ]; then
    for folder in $(recorded data); do rm -rf "$folder"; done
    ! has ip || ip link delete docker0 2>/dev/null || true
  fi
  for file in $(recorded file); do rm -f "$file"; done
  [ -z "$(recorded file)" ] || apt update || true # forgets the lists of the source
  rm -f "$engine_log" "$state"
  rmdir "${state%/*}" 2>/dev/null || true
  say "this machine is as it was; firewall rules that the engine made last until the next boot"
}

undo() {
  # without an engine nobody can tell what of its data is ours
  if [ -f "$state" ] && is_root && has dockerd && ! engine_answers; then start_engine; fi
  undo_docker
  undo_route
  rm -rf .venv
  if [ -f "$state" ]; then undo_host; else say "nothing was installed on this machine"; fi
}

python=${PYTHON:-python3}
case ${1:-all} in
  all)
    ensure_host
    ensure_venv
    .venv/bin/python -m mqtest.cluster.images
    ;;
  venv) ensure_venv ;;
  undo) undo ;;
  *) fail "unknown: $1 (venv or undo, or nothing)" ;;
esac
