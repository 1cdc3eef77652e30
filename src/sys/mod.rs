//! The only room that makes system calls and the only one where `unsafe` may stand.
//!
//! Everything above it deals in descriptor numbers, spans and results. Nothing here decides
//! anything: no policy, no protocol, no logging.

#![allow(unsafe_code)]

mod cgroup;
pub mod descriptors;
pub mod epoll;
pub mod generator;
pub mod host;
pub mod listen;
pub mod memory;
pub mod pipe;
pub mod process;
pub mod ring;
pub mod socket;
