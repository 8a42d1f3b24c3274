//! The rules of the configuration, for any text: no panic, and what is wrong is told in lines of bounded number.

use gooselake::config::{Config, Overrides};
use std::path::Path;

/// Of shape at most 50, and a few for the values.
const PROBLEMS_MAX: usize = 200;

pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // The address is resolved, and no test asks a name server.
    let overrides = Overrides { bind: Some("127.0.0.1:0".to_owned()), ..Overrides::default() };
    match Config::parse(text, Path::new("/nowhere"), "/nowhere", &overrides) {
        Ok(config) => assert!(config.root_dir.is_absolute(), "{:?}", config.root_dir),
        Err(problems) => {
            assert!(!problems.0.is_empty(), "it is wrong and nothing is wrong with it");
            assert!(problems.0.len() <= PROBLEMS_MAX, "{} problems", problems.0.len());
            assert!(problems.0.iter().all(|problem| !problem.contains('\n')), "{problems:?}");
        }
    }
}
