#!/bin/sh
# Debian trixie as a tar stream on stdout, for machines that can pull no image. Needs root and debootstrap.
# The mirror is the machine's own; where its apt knows none of Debian's, debootstrap's default.
set -eu
. "$(dirname "$0")/../mirror.sh"

mirror=$(debian_mirror)
keyring=$(debian_keyring)
# /var/tmp, because /tmp may be mounted nodev, where the system's device nodes cannot be made
root=$(mktemp -d /var/tmp/mqtest-base.XXXXXX)
trap 'rm -rf "$root"' EXIT
trap 'exit 130' INT TERM HUP

# ${mirror:+…}: an empty argument is not the same as none
debootstrap --variant=minbase --keyring="$keyring" trixie "$root" ${mirror:+"$mirror"} >&2
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/*
tar -C "$root" --numeric-owner -c .
