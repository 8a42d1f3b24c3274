//! `token`: prints the operator's token, and makes another.

use super::{Options, Outcome, config, tell, tell_error};
use crate::error::Error;
use crate::folder;
use std::process::ExitCode;

pub(super) const HELP: &str = "\
gg-runtime-server token: print the operator's token, alone on its line

usage: gg-runtime-server token [rotate] [--config FILE] [--data-dir DIR]

  rotate  make another token and print it. A server that runs takes it at its next start;
          agents go on working through a restart.
";

pub(super) fn run(options: &Options) -> Outcome {
    let config = match config(options) {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let word = options.words.first();
    if let Some(word) = word.filter(|word| *word != "rotate") {
        tell_error(&format!("token takes rotate or nothing, not {:?}", word.to_string_lossy()));
        return Ok(ExitCode::from(2));
    }
    if let Some(token) = &config.token {
        if word.is_some() {
            return Err(Error::bad_request("the token is in the configuration, as auth.token")
                .hint("change it there, or remove it to have one made in auth.token_file"));
        }
        tell(token);
        return Ok(ExitCode::SUCCESS);
    }
    let path = &config.token_file;
    if word.is_none() {
        let missing = || {
            Error::not_found("token file", &path.display().to_string())
                .hint("the first start of the server makes one, `token rotate` too")
        };
        tell(&folder::read_token(path)?.ok_or_else(missing)?);
        return Ok(ExitCode::SUCCESS);
    }
    tell(&folder::make_token(path)?);
    if folder::owner(&config.root_dir)?.is_some() {
        tell_error("a server runs with the old token; it takes this one at its next start");
    }
    Ok(ExitCode::SUCCESS)
}
