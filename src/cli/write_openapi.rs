//! `--write-openapi [FILE]`: the API document of this version, without a server.

use super::{tell, tell_error};
use crate::api::openapi::DOCUMENT;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The file behind the option, which may be left out.
pub(super) fn file(parser: &mut lexopt::Parser) -> Option<PathBuf> {
    if let Some(file) = parser.optional_value() {
        return Some(PathBuf::from(file));
    }
    let file = parser.try_raw_args()?.next_if(|word| !word.to_string_lossy().starts_with('-'));
    file.map(PathBuf::from)
}

pub(super) fn run(file: Option<&Path>) -> ExitCode {
    let Some(file) = file else {
        tell(DOCUMENT.trim_end());
        return ExitCode::SUCCESS;
    };
    match std::fs::write(file, DOCUMENT) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell_error(&format!("{} can not be written: {error}", file.display()));
            ExitCode::FAILURE
        }
    }
}
