#!/usr/bin/env bash
# What: saves by renaming and in place, with backup, swap and undo files; mode, owner, attributes and hard links are kept; ex mode for several files
# Needs: vim=vim getfattr=attr
# Version: vim --version
. "$(dirname "$0")/../lib/row.sh"
cd "$dir"
edit() { vim -N -u NONE -i NONE -es --not-a-term "$@" </dev/null || fail "vim ends with status $?"; }
seq 1 2000 >text
chmod 640 text
chown 1000:1000 text
setfattr -n user.note -v kept text
# backupcopy=no writes a new file and renames; the default for a file with attributes is to write in place.
for way in no yes auto; do
    ln -f text other-name
    edit -c "set backup backupskip= backupdir=. backupext=.bak backupcopy=$way swapfile undofile undodir=. writebackup fsync" \
        -c '%s/^\(\d*\)7$/\1seven/e' -c '1000put =\"saved with '"$way"'\"' -c 'wq' text
    grep -q "^saved with $way\$" text || fail "backupcopy=$way: the change is not in the file"
    [ "$(stat -c '%a %u:%g' text)" = '640 1000:1000' ] || fail "backupcopy=$way: mode and owner are $(stat -c '%a %u:%g' text)"
    [ -s text.bak ] || fail "backupcopy=$way: no backup"
    ! grep -q "^saved with $way\$" text.bak || fail "backupcopy=$way: the backup has the change"
    linked=$([ text -ef other-name ] && echo yes || echo no)
    [ $way = auto ] || [ "$linked" = $way ] || fail "backupcopy=$way: is the other name still the same file? $linked"
done
[ "$(wc -l <text)" = 2003 ] || fail "$(wc -l <text) lines"
[ -s .text.un~ ] || fail "no undo file"
edit -c 'rundo .text.un~' -c 'undo' -c 'wq' text
[ "$(wc -l <text)" -lt 2003 ] || fail "the undo file did not undo anything"
ls -A | grep -q '\.sw.$' && fail "a swap file is left"
printf 'a\n' >one && printf 'b\n' >two
edit -c 'bufdo s/$/!/ | update' -c 'qa' one two
[ "$(cat one two | tr -d '\n')" = 'a!b!' ] || fail "bufdo wrote $(cat one two)"

# A crash leaves the swap file, and recovery has what was typed.
echo original >crashing
vim -N -u NONE -i NONE -es --not-a-term -c 'set swapfile' -c 'call setline(1, "typed")' -c 'preserve' \
    -c 'call system("kill -9 " . getpid())' crashing </dev/null || true
[ -e .crashing.swp ] || fail "no swap file after the crash"
vim -N -u NONE -i NONE -es --not-a-term -r -c 'wq!' crashing </dev/null || true
[ "$(cat crashing)" = typed ] || fail "recovered: $(cat crashing)"
