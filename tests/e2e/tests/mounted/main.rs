//! A mounted cluster, used as people use one: through the kernel.
#![allow(clippy::unwrap_used, missing_docs)]

mod bed;
mod collisions;
mod contents;
mod faults;
mod names;
