//! The command line: what is understood, the configuration checked, the token, the log, the word to the manager.

use crate::command::{run, run_on};
use crate::stage::Stage;
use gooselake_harness::server::{Options, Server, program};
use gooselake_harness::temp::TempDir;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn wrong_use_ends_with_2_and_says_where_help_is() {
    for arguments in [&["sreve"][..], &["--bnid", "x"], &["backup"], &["verify", "--force"]] {
        let said = run(arguments).expect(2);
        assert!(said.stderr.contains("--help"), "{}", said.stderr);
        assert_eq!(said.stdout, "");
    }
    for arguments in [&["--help"][..], &["--version"], &["doctor", "--help"]] {
        assert!(run(arguments).expect(0).stdout.starts_with("gg-runtime-server"));
    }
}

#[test]
fn output_that_can_not_be_written_is_a_failure_unless_nobody_reads_it() {
    let say = |argument: &str, stdout: Stdio| {
        let mut command = Command::new(program("GG_TEST_SERVER", "gg-runtime-server").unwrap());
        let output = command.arg(argument).stdout(stdout).stderr(Stdio::piped()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for argument in ["--help", "--version", "--write-openapi"] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (code, told) = say(argument, full.into());
        assert_eq!(code, Some(1), "{argument}: {told}");
        assert!(told.contains("can not be written: No space left"), "{argument}: {told}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(say(argument, writer.into()), (Some(0), String::new()), "{argument}");
    }
}

#[test]
fn a_bad_configuration_is_told_whole_and_nothing_is_made() {
    let folder = TempDir::new("gg-cli-test");
    let config = folder.path().join("runtime-server.toml");
    fs::write(
        &config,
        "[server]\nbind_adress = \"127.0.0.1:1\"\nmax_streams = 0\n[data]\nroot_dir = \"data\"\n\
         synchronous = \"perhaps\"\n[events]\nheartbeat_secs = \"ten\"\n",
    )
    .unwrap();
    let config_name = config.to_str().unwrap();
    let said = run(&["--check-config", "--config", config_name]).expect(1);
    for part in ["line 2: ", "bind_address?", "line 3: ", "line 6: ", "line 8: "] {
        assert!(said.stderr.contains(part), "{part:?} in\n{}", said.stderr);
    }
    assert!(said.stderr.lines().all(|line| line.contains(config_name)), "{}", said.stderr);
    fs::write(&config, "[data]\nroot_dir = \"data\"\n").unwrap();
    let said = run(&["--check-config", "--config", config_name]).expect(0);
    assert!(said.stdout.contains("the configuration is good"), "{}", said.stdout);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the configuration is there: {left:?}");
}

#[test]
fn the_token_is_printed_and_a_new_one_is_taken_at_the_next_start() {
    let mut stage = Stage::new();
    let old = stage.server.token();
    let data_dir = stage.server.data_dir().to_owned();
    assert_eq!(run_on(&data_dir, &["token"]).expect(0).stdout.trim(), old);
    let said = run_on(&data_dir, &["token", "rotate"]).expect(0);
    assert!(said.stderr.contains("next start"), "{}", said.stderr);
    let new = said.stdout.trim().to_owned();
    assert_ne!(new, old);
    let mode = fs::metadata(data_dir.join("auth/api-token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The server that runs has the old one.
    assert_eq!(crate::contract::client(&stage.server).get("/v1/version").status, 401);
    stage.client.get("/v1/version").expect(200);
    stage.restart();
    assert_eq!(stage.server.token(), new);
    stage.client.get("/v1/version").expect(200);
}

#[test]
fn the_log_is_one_object_a_line_when_that_is_asked() {
    let args = ["--log-format", "json"].map(str::to_owned).to_vec();
    let config_toml = "[events]\nlive_queue_capacity = 7\n".to_owned();
    let mut server = Server::start(Options { args, config_toml, ..Options::default() });
    assert_eq!(server.terminate(), Some(0));
    let text = server.stderr_text();
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let told =
        |part: &str| lines.iter().any(|line| line["message"].as_str().unwrap().contains(part));
    assert!(told("live_queue_capacity") && told("stopping"), "{text}");
    for line in &lines {
        assert!(line["time"].is_string() && line["level"] == "info", "{line}");
    }
}

#[test]
fn the_service_manager_hears_when_the_server_is_ready_and_when_it_stops() {
    let folder = TempDir::new("gg-notify-test");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let hear = || {
        let mut buffer = [0; 1024];
        let count = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let env = vec![("NOTIFY_SOCKET".to_owned(), path.to_str().unwrap().to_owned())];
    let mut server = Server::start(Options { env, ..Options::default() });
    let ready = hear();
    assert!(ready.starts_with("READY=1\n"), "{ready}");
    assert!(ready.contains(&server.address().to_string()), "{ready}");
    assert_eq!(server.terminate(), Some(0));
    assert!(hear().starts_with("STOPPING=1"));
}
