//! gooselake: air traffic control for coding agents on one machine.

pub mod error;
pub mod http;
pub mod keeper;
pub mod ledger;
pub mod limits;
pub mod model;
pub mod provider;
pub mod thread;
