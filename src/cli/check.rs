//! `--check-config`: all that is wrong with a configuration, and nothing changed on disk.

use super::{Options, config, tell};
use std::process::ExitCode;

pub(super) fn run(options: &Options) -> ExitCode {
    let config = match config(options) {
        Ok(config) => config,
        Err(code) => return code,
    };
    for notice in &config.notices {
        tell(&format!("note: {notice}"));
    }
    let providers: Vec<&str> = config.providers.keys().copied().collect();
    tell(&format!("the configuration is good; data folder {}", config.root_dir.display()));
    tell(&format!("bind {}, providers {}", config.bind, providers.join(" ")));
    ExitCode::SUCCESS
}
