//! A storage node over real HTTP, registered with a small master that the tests steer.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test they help")]

#[path = "http/copies.rs"]
mod copies;
#[path = "http/errors.rs"]
mod errors;
#[path = "http/life.rs"]
mod life;
#[path = "http/local.rs"]
mod local;
#[path = "http/reading.rs"]
mod reading;
#[path = "http/support.rs"]
mod support;
