#!/usr/bin/env bash
# What: -aHAX of 600 files of all kinds onto the mount and back, all metadata and checksums equal; a second run finds nothing to do; --inplace, --append, -S, --delete
# Needs: rsync=rsync setfacl=acl python3=python3
# Version: rsync --version
. "$(dirname "$0")/../lib/row.sh"
tree=$scratch/tree
python3 "$lib/make_tree.py" "$tree" 600
python3 "$lib/manifest.py" "$tree" >"$scratch/wanted"

rsync -aHAXS --modify-window=-1 --devices --specials "$tree/" "$dir/there/"
python3 "$lib/manifest.py" "$dir/there" >"$scratch/there"
same "the tree on the mount" "$scratch/wanted" "$scratch/there"
rsync -aHAXS --modify-window=-1 --devices --specials "$dir/there/" "$scratch/back/"
python3 "$lib/manifest.py" "$scratch/back" >"$scratch/back.manifest"
same "the tree that came back" "$scratch/wanted" "$scratch/back.manifest"

rsync -aHAXSc --devices --specials --modify-window=-1 --itemize-changes --dry-run "$tree/" "$dir/there/" >"$scratch/again"
[ ! -s "$scratch/again" ] || { head -20 "$scratch/again" >&2; fail "a second run with checksums finds something to do"; }

big=$tree/folder-1/big
head -c 5000000 /dev/urandom >"$big"
rsync -a --modify-window=-1 --inplace "$tree/folder-1/" "$dir/there/folder-1/"
printf 'patched' | dd of="$big" bs=1 seek=2500000 conv=notrunc status=none
rsync -a --modify-window=-1 --inplace --no-whole-file "$tree/folder-1/" "$dir/there/folder-1/"
cmp "$big" "$dir/there/folder-1/big"
head -c 100000 /dev/urandom >>"$big"
rsync -a --modify-window=-1 --append-verify "$tree/folder-1/" "$dir/there/folder-1/"
cmp "$big" "$dir/there/folder-1/big"
rm -rf "$tree/folder-2" "$big"
rsync -aHAXS --modify-window=-1 --devices --specials --delete "$tree/" "$dir/there/"
python3 "$lib/manifest.py" "$tree" >"$scratch/wanted"
python3 "$lib/manifest.py" "$dir/there" >"$scratch/there"
same "the tree after --delete" "$scratch/wanted" "$scratch/there"
