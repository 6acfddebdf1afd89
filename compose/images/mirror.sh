# Where this machine gets Debian from, asked of its own apt, so that no host name stands in our files.
# Sourced by compose/setup.sh and by bootstrap.sh. MQTEST_DEBIAN_MIRROR says otherwise.

debian_mirror() { # prints the URL of a Debian mirror, or nothing where apt knows none
  if [ -n "${MQTEST_DEBIAN_MIRROR:-}" ]; then
    printf '%s\n' "$MQTEST_DEBIAN_MIRROR"
    return
  fi
  command -v apt-get >/dev/null 2>&1 || return 0
  # the archive itself, not its -security or -updates suites: the one that carries this release's name
  (
    . "${MQTEST_ROOT:-}/etc/os-release"
    [ "${ID:-}" = debian ] || exit 0
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
      awk -v suite="${VERSION_CODENAME:-}" '
        ($2 == suite || $2 == "stable" || $2 == "testing" || $2 == "sid") && $3 == "main" { print $1; exit }'
  )
}

debian_keyring() { # prints the file with the keys of Debian's archive
  for keys in /usr/share/keyrings/debian-archive-keyring.gpg /usr/share/keyrings/debian-archive-keyring.pgp; do
    [ -f "${MQTEST_ROOT:-}$keys" ] && printf '%s\n' "$keys" && return
  done
  echo "the keys of Debian's archive are not installed (package debian-archive-keyring)" >&2
  return 1
}
