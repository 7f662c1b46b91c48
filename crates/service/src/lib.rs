//! Process scaffolding that the programs share: logging, clocks, back-off, capabilities, files that are
//! replaced whole, errors over HTTP, and servers that start and stop.
//!
//! Knows no program's business. It must stay free of anything that only one of them needs.

pub mod address;
pub mod backoff;
pub mod capability;
pub mod clock;
pub mod durable;
pub mod http;
pub mod logging;
pub mod memory;
pub mod process;
pub mod running;

pub use address::server_url;
pub use backoff::Backoff;
pub use capability::{Capability, CapabilityError, Rights, TokenKey};
pub use clock::{Clock, ManualClock, SystemClock};
pub use http::HttpError;
pub use running::{Running, Stopper};
