//! The API document: OpenAPI 3.1, made from the table of routes and the types of bodies, records and events.
//!
//! Owns: the text that the server carries, and the route that shows it. How the document is made is built in tests
//! alone: [`document`] puts it together, a test compares it with the file in `docs/openapi`, and `UPDATE=1` rewrites
//! that. So the product has no generator in it, and a change of a route or a type that the file does not follow fails
//! `make test`.

#[cfg(test)]
pub(super) mod answer;
#[cfg(test)]
mod document;
#[cfg(test)]
mod event;
#[cfg(test)]
mod example;
#[cfg(test)]
mod figure;
#[cfg(test)]
mod link;
#[cfg(test)]
mod remedy;
#[cfg(test)]
mod told;
#[cfg(test)]
mod yaml;

#[cfg(test)]
pub(super) use told::*;

use super::{Api, Call};
use crate::error::Result;
use crate::http::{Answer, Response};

/// The document of this version, YAML.
pub const DOCUMENT: &str = include_str!("../../docs/openapi/runtime-server-openapi.yaml");

pub(super) fn show(_api: &Api, _call: &Call) -> Result<Answer> {
    let mut response = Response::new(200)
        .header("Content-Type", "application/yaml")
        .header("Cache-Control", "no-cache");
    response.body = DOCUMENT.to_owned().into();
    Ok(Answer::Whole(response))
}
