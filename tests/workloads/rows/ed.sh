#!/usr/bin/env bash
# What: ed writes and appends, sed -i, perl -i and patch change files in place; awk and sort write onto their own input
# Needs: ed=ed patch=patch perl=perl
# Version: ed --version
. "$(dirname "$0")/../lib/row.sh"
cd "$dir"
seq 5000 >numbers
printf '%s\n' '1,$s/^/line /' '5000a' 'the last one' . w 'W copy' q | ed -s numbers
[ "$(tail -1 numbers)" = 'the last one' ] && cmp numbers copy || fail "ed wrote something else"
sed -i.old 's/line/row/' numbers
[ "$(head -1 numbers) $(head -1 numbers.old)" = 'row 1 line 1' ] || fail "sed -i"
perl -pi -e 's/row/perl/' numbers
[ "$(sed -n 7p numbers)" = 'perl 7' ] || fail "perl -i"
diff -u numbers.old numbers >"$scratch/patch" || true
cp numbers.old patched
patch -s patched <"$scratch/patch"
cmp patched numbers || fail "patch"
sort -r -o numbers numbers
sort -c -r numbers || fail "sort -o onto its input"
for i in $(seq 200); do echo "$i" >>appended; done
seq 200 | cmp - appended || fail "200 appends by 200 opens"
awk '{ print > ("part-" ($1 % 20)) }' appended
[ "$(cat part-* | sort -n | md5sum)" = "$(md5sum <appended)" ] || fail "awk to 20 files"
