//! The MCP gateway, through the real sidecar and by hand: what agents do with it, and what they can not.
//!
//! `agent` is the way of an agent that calls tools, `access` what its token opens, `wire` the gateway over HTTP, and
//! `wiretap` lets a test read what an agent is told, its token among it.

mod access;
mod agent;
mod wire;
mod wiretap;
