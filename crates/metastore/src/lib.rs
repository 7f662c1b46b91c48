//! The master's tables behind one low seam: rows in, rows out, inside transactions.
//!
//! Owns how the master's state is kept and made durable. It does not know what the rows mean: which errors a
//! rename gives is the namespace's business (`dfs-namespace`), where copies belong is the master's. The only
//! crate that names a SQL library, and within it only the module `sqlite` does.
//!
//! ```text
//! Store::read(closure)   -> a free connection, a snapshot            -> &dyn ReadTxn
//! Store::write(closure)  -> queue -> writer thread, group of calls:
//!                             BEGIN
//!                               savepoint: closure of call 1         -> &mut dyn WriteTxn
//!                               savepoint: closure of call 2
//!                             COMMIT, fdatasync if one of them asked for Durability::Disk
//!                           -> all are answered
//! ```
//!
//! What holds for every store (the cases of `conformance` say it in detail):
//! - A call happens whole or not at all. An `Err`, a panic or a refused write undoes it, and only it.
//! - Calls happen one after the other: a closure sees all that was answered before it and may decide on what
//!   it reads.
//! - What was answered is seen by every later read, and survives the end of the process at any instant.
//!
//! There are two stores: [`Store::open_sqlite`], and [`Store::in_memory`] as the reference for tests.

mod check;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod memory;
pub mod row;
mod seam;
mod sqlite;
mod store;

pub use row::{CopyRow, DentryRow, GarbageRow, InodeRow, LockRow, NodeDuty, NodeRow, SessionRow, VolumeRow};
pub use seam::{Counter, Durability, ReadTxn, StoreError, StoreStats, WriteTxn};
pub use store::Store;
