//! gooselake: air traffic control for coding agents on one machine.

pub mod api;
pub mod config;
pub mod error;
pub mod http;
pub mod keeper;
pub mod ledger;
pub mod limits;
pub mod model;
pub mod provider;
pub mod server;
pub mod session;
pub mod signals;
pub mod thread;
