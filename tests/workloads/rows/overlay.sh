#!/usr/bin/env bash
# What: in a mount namespace: overlayfs with the mount as lower directory (copy up, whiteouts, renames leave it alone), a bind mount, read-only bind, a chroot that runs programs from the mount
# Needs: unshare=util-linux
# Version: unshare --version
. "$(dirname "$0")/../lib/row.sh"
[ "${2:-}" = inside ] || exec unshare --mount --propagation private "$0" "$1" inside
mkdir -p "$dir/lower/sub" "$dir/bound" "$scratch/merged" "$scratch/over"
for i in $(seq 50); do echo "lower $i" >"$dir/lower/sub/$i"; done
cp /bin/true "$dir/lower/program"
# The upper directory has to be on a file system that knows whiteouts: a local one.
mount -t tmpfs tmpfs "$scratch/over"
mkdir "$scratch/over/upper" "$scratch/over/work"
mount -t overlay overlay -o "lowerdir=$dir/lower,upperdir=$scratch/over/upper,workdir=$scratch/over/work" "$scratch/merged"
cd "$scratch/merged"
[ "$(cat sub/7)" = 'lower 7' ] || fail "the overlay does not show the lower file"
echo changed >>sub/7
rm sub/8
mv sub/9 sub/renamed
chmod 600 sub/10
./program || fail "a program of the lower directory does not run"
[ "$(ls sub | wc -l)" = 49 ] && [ "$(cat sub/renamed)" = 'lower 9' ] || fail "the overlay shows $(ls sub | wc -l) files"
[ "$(cat "$dir/lower/sub/7" "$dir/lower/sub/8" "$dir/lower/sub/9" | tr '\n' ,)" = 'lower 7,lower 8,lower 9,' ] || fail "the lower directory changed"
cd /
umount "$scratch/merged"

mount --bind "$dir/lower" "$dir/bound"
echo through >"$dir/bound/through"
[ "$(cat "$dir/lower/through")" = through ] || fail "a file written through the bind mount is not there"
mount -o remount,bind,ro "$dir/bound"
! touch "$dir/bound/refused" 2>/dev/null || fail "the read-only bind mount lets files be made"
umount "$dir/bound"

# A root of its own with the programs and libraries that it needs, all on the mount.
mkdir -p "$dir/root/tmp" "$dir/root/proc"
for program in /bin/sh /bin/ls /bin/cat; do
    install -D "$program" "$dir/root$program"
    ldd "$program" | grep -o '/[^ )]*' | while read -r library; do
        [ -e "$dir/root$library" ] || install -D "$library" "$dir/root$library"
    done
done
mount -t proc proc "$dir/root/proc"
answer=$(chroot "$dir/root" /bin/sh -c 'cd /tmp && echo inside >file && cat file && ls /tmp')
[ "$answer" = $'inside\nfile' ] || fail "the chroot answers $answer"
umount "$dir/root/proc"
