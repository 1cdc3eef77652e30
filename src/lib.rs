//! standpipe: a load balancer for very many long-lived connections.
//!
//! `sys`, `proto`, `route`, `balance` and `meter` stand alone; `config` knows their limits; `core`
//! moves the bytes; `control` decides what the cores are told. The binary wires them together.
//! `demo` stands beside them: it runs the binary and talks to it from outside.

#![deny(unsafe_code)]

pub mod balance;
pub mod config;
pub mod control;
pub mod core;
pub mod demo;
pub mod meter;
pub mod proto;
pub mod route;
pub mod sys;
