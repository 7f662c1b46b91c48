//! The master's tables behind one low seam: rows in, rows out, inside transactions.
//!
//! Owns how the master's state is kept and made durable. It does not know what the rows mean: which errors a
//! rename gives is the namespace's business (`dfs-namespace`), where copies belong is the master's. The only
//! crate that names a SQL library.
//!
//! ```text
//! Store::read(closure)   -> snapshot      -> &dyn ReadTxn
//! Store::write(closure)  -> writer thread -> &mut dyn WriteTxn, in a savepoint of a group commit
//! ```

mod check;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod memory;
pub mod row;
mod seam;
mod sqlite;
mod store;

pub use row::{CopyRow, DentryRow, GarbageRow, InodeRow, NodeRow, SessionRow, VolumeRow};
pub use seam::{Counter, Durability, ReadTxn, StoreError, StoreStats, WriteTxn};
pub use store::Store;
