#!/bin/sh
# tests/servers/ceph_tree.sh FOLDER: makes FOLDER a small Debian with Ceph in it, unless it is one already.
# Needs root, Debian or Ubuntu, and the machine's own Debian mirror; takes about a minute and 700 MB.
#
# Of Debian testing, as Ceph has to be 20: older ones do not take an ETag in quotes for what it is. Nothing of it is
# installed into this machine but debootstrap, which makes it.
set -eu
tree=$1
suite=${S3CONV_CEPH_SUITE:-forky}
[ ! -e "$tree/.complete" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "s3conv: Ceph in a tree of its own needs root (chroot and mount); run this as root." >&2
    exit 1
fi
if ! command -v debootstrap >/dev/null; then
    if ! command -v apt-get >/dev/null; then
        echo "s3conv: debootstrap is missing, and there is no apt-get to install it with." >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends debootstrap >/dev/null
fi
# A debootstrap that is older than the suite has no script under its name; Debian's are all one script.
recipe=/usr/share/debootstrap/scripts/$suite
[ -e "$recipe" ] || recipe=/usr/share/debootstrap/scripts/sid
mirror=$(apt-get indextargets --format '$(REPO_URI)' | head -n 1)

rm -rf "$tree" # a half of one, of a run that was stopped
mkdir -p "$tree"
debootstrap --variant=minbase --include=ca-certificates "$suite" "$tree" "$mirror" "$recipe"

printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d" # no package starts a daemon
chmod +x "$tree/usr/sbin/policy-rc.d"
printf 'path-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\n' >"$tree/etc/dpkg/dpkg.cfg.d/small"
cp /etc/resolv.conf "$tree/etc/resolv.conf"
# The mounts live in a namespace of their own, and end with it. Without /proc, packages that Ceph needs do not install.
unshare --mount --propagation private sh -euc '
    mount -t proc proc "$1/proc"
    mount --rbind /dev "$1/dev"
    mount -t sysfs sysfs "$1/sys"
    DEBIAN_FRONTEND=noninteractive chroot "$1" apt-get install -qq -y --no-install-recommends \
        -o Acquire::Languages=none -o Dpkg::Use-Pty=0 radosgw ceph-mon ceph-osd ceph-common
    chroot "$1" apt-get clean
' sh "$tree"
rm -rf "$tree"/var/lib/apt/lists/*
chroot "$tree" radosgw --version >"$tree/.complete"
