//! `reap`: ends the agents that a server has left and that no server takes up.
//!
//! Without a server every child of the data folder is ended; their folders stay, so that the next server learns how
//! they ended. Beside a server that runs, only children that its ledger does not know: the others are its own.

use super::{Options, Outcome, config, for_each_child, tell};
use crate::error::{Error, Result};
use crate::keeper::{self, leftover};
use crate::ledger::{self, agent};
use crate::{config::Config, folder};
use std::process::ExitCode;

pub(super) const HELP: &str = "\
gg-runtime-server reap: end agents that a server has left and no server takes up

usage: gg-runtime-server reap [--config FILE] [--data-dir DIR]

An agent outlives its server for keeper.lease_secs, so that a new one can go on with it. This
ends those of a data folder whose server will not come back. While a server runs, only what it
does not know is ended; close a session to end what it knows.
";

pub(super) fn run(options: &Options) -> Outcome {
    let config = match config(options) {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    if !config.root_dir.is_dir() {
        return Err(Error::not_found("data folder", &config.root_dir.display().to_string())
            .hint("name it with --data-dir or --config"));
    }
    let keepers = config.root_dir.join("keepers");
    // Listed before the ledger is asked: a row is committed before its folder is made.
    let children = keeper::list(&keepers)?;
    if children.is_empty() {
        tell("no agent was left");
        return Ok(ExitCode::SUCCESS);
    }
    let is_served = folder::owner(&config.root_dir)?.is_some();
    // Held while agents are ended, so that no server takes one up at that moment.
    let _lock = if is_served { None } else { Some(folder::lock_folder(&config.root_dir)?) };
    let known = known_children(&config)?;
    let (mut ended, mut left) = (0, 0);
    let done = for_each_child(&children, |child_id| {
        let is_known = known.iter().any(|known| known == child_id);
        if is_served && is_known {
            left += 1;
            return Ok(());
        }
        let processes = leftover::end(child_id, config.keeper_grace)?;
        if processes > 0 {
            ended += 1;
            tell(&format!("ended {child_id}: {processes} processes"));
        }
        let dir = keepers.join(child_id);
        if !is_known && let Err(error) = std::fs::remove_dir_all(&dir) {
            log::warn!("the folder {} can not be removed: {error}", dir.display());
        }
        Ok(())
    });
    let of_server = match left {
        0 => String::new(),
        left => format!("; {left} are those of the server that runs"),
    };
    tell(&format!("{ended} agents and processes ended{of_server}"));
    done.map(|()| ExitCode::SUCCESS)
}

/// Children that the database of the folder knows; none without one.
fn known_children(config: &Config) -> Result<Vec<String>> {
    if !config.sqlite_path.is_file() {
        return Ok(Vec::new());
    }
    agent::known_children(&ledger::open_reader(&config.sqlite_path)?)
}
