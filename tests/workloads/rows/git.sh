#!/usr/bin/env bash
# What: clone (over file://, with hard links, as a worktree), 25 commits, branches, merge, rebase, stash, gc, fsck; the clones are equal
# Needs: git=git
# Version: git --version
. "$(dirname "$0")/../lib/row.sh"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_CONFIG_COUNT=3
export GIT_CONFIG_KEY_0=user.name GIT_CONFIG_VALUE_0=Row GIT_CONFIG_KEY_1=user.email GIT_CONFIG_VALUE_1=row@localhost
# Nothing in the background that would outlive the row.
export GIT_CONFIG_KEY_2=gc.autoDetach GIT_CONFIG_VALUE_2=false
export GIT_TERMINAL_PROMPT=0

git init -q -b main "$dir/origin"
cd "$dir/origin"
for i in $(seq 25); do
    mkdir -p "src/$((i % 7))"
    seq "$i" $((i * 40)) >"src/$((i % 7))/file-$i"
    echo "line $i" >>README
    git add -A
    git commit -q -m "commit $i"
done
git tag -a v1 -m "version 1"

git checkout -q -b topic HEAD~10
echo topic >topic && git add topic && git commit -q -m topic
git rebase -q main
git checkout -q main
git merge -q --no-ff -m merged topic
echo unsaved >>README && git stash -q && git stash pop -q && git checkout -q README
git mv README README.md && git commit -q -m renamed

git clone -q "file://$dir/origin" "$dir/over-protocol"
git clone -q --local "$dir/origin" "$dir/hard-linked"
git worktree add -q "$dir/worktree" topic
for clone in over-protocol hard-linked; do
    [ "$(git -C "$dir/$clone" rev-parse HEAD)" = "$(git rev-parse HEAD)" ] || fail "$clone has another head"
    [ -z "$(git -C "$dir/$clone" status --porcelain)" ] || fail "$clone is not clean after the clone"
done

echo pushed >"$dir/over-protocol/pushed"
git -C "$dir/over-protocol" add pushed
git -C "$dir/over-protocol" commit -q -m pushed
git -C "$dir/over-protocol" push -q origin HEAD:refs/heads/pushed
git merge -q --ff-only pushed

git gc -q --aggressive --prune=now
git repack -q -a -d -f
for repository in origin over-protocol hard-linked; do
    git -C "$dir/$repository" fsck --full --strict --no-progress >"$scratch/fsck" 2>&1 || fail "fsck of $repository: $(cat "$scratch/fsck")"
done
[ -z "$(git status --porcelain)" ] || fail "not clean at the end: $(git status --porcelain)"
[ "$(git rev-list --count HEAD)" = 29 ] || fail "$(git rev-list --count HEAD) commits instead of 29"
git archive HEAD | tar -t >/dev/null
