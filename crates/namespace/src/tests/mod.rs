//! Tests of the operations, each on every store.
//!
//! A case is a function over a [`harness::World`]: one transaction on an empty namespace, with its own clock
//! and its own idea of which files are open. The world checks by itself that an operation that fails has
//! changed nothing, and at the end that the invariants hold.

mod harness;
mod invariants;

mod accessed;
mod acl;
mod clone;
mod commit;
mod commit_model;
mod content_model;
mod entries;
mod lock;
mod make;
mod names;
mod removal;
mod rename;
mod sequences;
mod setattr;
mod unnamed;
mod xattr;
