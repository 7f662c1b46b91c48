//! A mounted cluster, used as people use one: through the kernel.
#![allow(clippy::unwrap_used, missing_docs)]

mod access_lists;
mod allocation;
mod bed;
mod children;
mod collisions;
mod contents;
mod creating;
mod direct_writers;
mod directories;
mod faults;
mod interrupts;
mod linearizable;
mod locks;
mod mapped;
mod names;
mod nodes;
mod set_id;
mod tmpfiles;
