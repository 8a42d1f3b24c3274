//! Inputs of the fuzz targets, for people and scripts.
//!
//! `fuzz-inputs list` names the targets, `fuzz-inputs seeds <folder>` writes the seeds of each into
//! `<folder>/<target>/`, `fuzz-inputs play <target> <file>…` runs the check on files without libFuzzer. One thread.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for people")]

use gooselake_fuzz::{TARGETS, target};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["list"] => {
            TARGETS.iter().for_each(|target| println!("{}", target.name));
            Ok(())
        }
        ["seeds", folder] => write_seeds(Path::new(folder)),
        ["play", name, files @ ..] => play(name, files),
        _ => {
            eprintln!("usage: fuzz-inputs list | seeds <folder> | play <target> <file>…");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn write_seeds(folder: &Path) -> std::io::Result<()> {
    for target in TARGETS {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder)?;
        let seeds = (target.seeds)();
        for (place, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{place:03}")), seed)?;
        }
        println!("{}: {} seeds", target.name, seeds.len());
    }
    Ok(())
}

fn play(name: &str, files: &[&str]) -> std::io::Result<()> {
    let target = target(name).ok_or_else(|| std::io::Error::other("there is no such target"))?;
    for file in files {
        println!("{file}");
        (target.check)(&std::fs::read(file)?);
    }
    Ok(())
}
