#!/usr/bin/env bash
# What: `cargo build`, `run`, `test`, a change and an incremental build of a crate of two targets, sources and target directory on the mount
# Needs: cc=build-essential
# Version: cargo --version
. "$(dirname "$0")/../lib/row.sh"
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
unset CARGO_TARGET_DIR RUSTC_WRAPPER
export CARGO_NET_OFFLINE=true
cargo init -q --vcs none --name row --bin "$dir/row"
cd "$dir/row"
cat >src/lib.rs <<'END'
pub fn answer() -> u32 { 41 }
#[cfg(test)]
mod tests {
    #[test]
    fn the_answer_has_two_digits() { assert!((10..100).contains(&super::answer())); }
}
END
echo 'fn main() { println!("{}", row::answer()); }' >src/main.rs
cargo build -q
[ "$(cargo run -q)" = 41 ] || fail "the first build answers $(cargo run -q)"
sed -i 's/41/42/' src/lib.rs
[ "$(cargo run -q)" = 42 ] || fail "the change was not built: $(cargo run -q)"
cargo test -q >"$scratch/test.log" 2>&1 || { cat "$scratch/test.log" >&2; fail "cargo test"; }
cargo build 2>&1 | tee "$scratch/again.log" | grep -q Finished || fail "no third build"
! grep -q Compiling "$scratch/again.log" || fail "cargo builds again what is fresh: times do not hold"
cargo build -q --release
[ "$(target/release/row)" = 42 ] || fail "the release build answers $(target/release/row)"
cargo clean -q
[ ! -e target ] || fail "cargo clean left the target directory"
