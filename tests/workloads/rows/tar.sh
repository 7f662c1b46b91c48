#!/usr/bin/env bash
# What: a tree of 5,000 files of all kinds unpacked on the mount, all metadata compared (owners, modes, ns times, hard links, xattrs, ACLs, devices); packed there, and the same again from that archive
# Needs: tar=tar setfacl=acl python3=python3
# Version: tar --version
# Timeout: 400
. "$(dirname "$0")/../lib/row.sh"
python3 "$lib/make_tree.py" "$scratch/tree" 5000
# Sockets do not go into archives.
find "$scratch/tree" -type s -delete
touch -d @1500000000 "$scratch/tree"
python3 "$lib/manifest.py" "$scratch/tree" >"$scratch/wanted"
pack() {
    tar -C "$1" -c --format=pax --pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f \
        --sort=name --numeric-owner --xattrs --xattrs-include='*' --acls "${@:2}" .
}
pack "$scratch/tree" --sparse >"$scratch/sparse.tar"
mkdir "$dir/tree"
tar -C "$dir/tree" -xp --numeric-owner --xattrs --xattrs-include='*' --acls --warning=no-timestamp -f "$scratch/sparse.tar"
python3 "$lib/manifest.py" "$dir/tree" >"$scratch/got"
same "the unpacked tree" "$scratch/wanted" "$scratch/got"
# Archives differ in the order of attributes; what comes out of them must not.
pack "$dir/tree" >"$scratch/again.tar"
mkdir "$scratch/again"
tar -C "$scratch/again" -xp --numeric-owner --xattrs --xattrs-include='*' --acls --warning=no-timestamp -f "$scratch/again.tar"
python3 "$lib/manifest.py" "$scratch/again" >"$scratch/got"
same "the tree from the archive made on the file system" "$scratch/wanted" "$scratch/got"
tar -C "$dir/tree" --compare --numeric-owner --xattrs --xattrs-include='*' --acls -f "$scratch/sparse.tar" || fail "tar --compare finds differences"
rm -rf "$dir/tree"
[ ! -e "$dir/tree" ] || fail "rm -rf left something"
