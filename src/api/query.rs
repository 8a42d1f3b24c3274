//! Query parameters: values are checked, errors name the parameter. Names that a route does not know are ignored, since
//! proxies and clients add their own.

use super::Call;
use crate::error::{Error, Result};
use crate::ledger::Most;
use crate::limits;

/// The most that one list answer holds.
const LIST_MAX: usize = 10_000;

impl Call {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.head().query_value(name)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<i64>> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Error::bad_request(format!("{name} is {text:?}; it must be a whole number"))
                })
            })
            .transpose()
    }

    /// A number that is not below nothing.
    pub(super) fn count(&self, name: &str) -> Result<Option<i64>> {
        match self.number(name)? {
            Some(number) if number < 0 => {
                Err(Error::bad_request(format!("{name} is {number}; it can not be negative")))
            }
            other => Ok(other),
        }
    }

    pub(super) fn is_on(&self, name: &str, default: bool) -> Result<bool> {
        match self.text(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(text) => {
                Err(Error::bad_request(format!("{name} is {text:?}; it must be true or false")))
            }
        }
    }

    /// `limit`, at most 10,000.
    pub(super) fn limit(&self, default: usize) -> Result<usize> {
        let limit = self.count("limit")?.map(|limit| usize::try_from(limit).unwrap_or(LIST_MAX));
        Ok(limit.map_or(default, |limit| limit.min(LIST_MAX)))
    }

    /// The bounds of a list whose records can be large.
    pub(super) fn most(&self, default: usize) -> Result<Most> {
        Ok(Most { rows: self.limit(default)?, bytes: limits::LIST_BYTES })
    }

    /// A filter that must be one of these words.
    pub(super) fn one_of<'a>(&'a self, name: &str, words: &[&str]) -> Result<Option<&'a str>> {
        match self.text(name) {
            Some(text) if !words.contains(&text) => Err(Error::bad_request(format!(
                "{name} is {text:?}; it can be {}",
                words.join(", ")
            ))),
            other => Ok(other),
        }
    }
}
