//! Backup, restore, verify: beside a server that works, and after everything is gone.

use crate::command::{run_and_kill_at, run_on, run_on_a_full_disk};
use crate::stage::{Stage, text};
use gooselake_harness::proc;
use gooselake_harness::server::{Options, Server};
use gooselake_harness::temp::TempDir;
use rusqlite::Connection;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn database(data_dir: &Path) -> Connection {
    Connection::open(data_dir.join("runtime.sqlite3")).unwrap()
}

#[test]
fn a_backup_of_a_working_server_becomes_the_same_transcript_elsewhere() {
    let stage = Stage::new();
    let folder = TempDir::new("gg-backup-test");
    let file = folder.path().join("kept.sqlite3");
    let name = file.to_str().unwrap();
    let session_id = stage.session();
    stage.run(&session_id, "say Remember this.");
    stage.run(&session_id, "run echo kept > kept.txt && cat kept.txt");
    let transcript = stage.client.get(&format!("/v1/sessions/{session_id}/transcript")).text();
    // A second session writes while the copy is made.
    let busy = stage.session();
    let turn_id = stage.start(&busy, "slow 100000 1");
    stage.event(&busy, "item.delta", 0);

    let said = run_on(stage.server.data_dir(), &["backup", name]).expect(0);
    assert!(said.stdout.contains("2 sessions, 3 turns"), "{}", said.stdout);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // The name is taken; the copy stays as it is.
    let bytes = fs::read(&file).unwrap();
    let said = run_on(stage.server.data_dir(), &["backup", name]).expect(1);
    assert!(said.stderr.contains("--force"), "{}", said.stderr);
    assert!(fs::read(&file).unwrap() == bytes, "the backup was changed");
    // Nobody restores under a server that runs.
    let said = run_on(stage.server.data_dir(), &["restore", name, "--force"]).expect(1);
    assert!(said.stderr.contains("another server runs"), "{}", said.stderr);
    stage.interrupt(&busy, &turn_id).expect(202);
    drop(stage);

    let data_dir = folder.path().join("data");
    run_on(&data_dir, &["restore", name]).expect(0);
    run_on(&data_dir, &["verify"]).expect(0);
    let server = Server::start(Options { data_dir: Some(data_dir.clone()), ..Options::default() });
    let client = crate::contract::client(&server);
    let path = format!("/v1/sessions/{session_id}/transcript");
    assert_eq!(client.get(&path).expect(200).text(), transcript);
    // The turn that ran has lost its agent, and is over.
    let path = format!("/v1/sessions/{busy}/turns/{turn_id}?wait_ms=30000");
    assert_eq!(client.get(&path).expect(200).json()["status"], "failed");
    run_on(&data_dir, &["verify"]).expect(0);
}

#[test]
fn a_restore_over_a_database_puts_it_aside_and_ends_its_agents() {
    let mut stage = Stage::new();
    let data_dir = stage.server.data_dir().to_owned();
    let file = stage.server.folder().join("kept.sqlite3");
    let name = file.to_str().unwrap();
    let session_id = stage.session();
    stage.run(&session_id, "say before");
    run_on(&data_dir, &["backup", name]).expect(0);
    stage.start(&session_id, "slow 1000 100");
    stage.server.kill9();
    let keepers = proc::keepers_of(&data_dir);
    assert_eq!(keepers.len(), 1);
    let said = run_on(&data_dir, &["restore", name]).expect(1);
    assert!(said.stderr.contains("--force"), "{}", said.stderr);
    run_on(&data_dir, &["restore", name, "--force"]).expect(0);
    assert!(proc::keepers_of(&data_dir).is_empty());
    let names: Vec<String> = fs::read_dir(&data_dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name.contains(".replaced-")), "{names:?}");
    stage.server.restart();
    stage.client = crate::contract::client(&stage.server);
    assert_eq!(stage.run(&session_id, "say after")["assistant_text"], "after");
}

/// What the log held when the server was killed is in the old database, which is one file.
#[test]
fn a_database_that_is_put_aside_has_all_that_it_had() {
    let mut stage = Stage::new();
    let data_dir = stage.server.data_dir().to_owned();
    let file = stage.server.folder().join("kept.sqlite3");
    let session_id = stage.session();
    run_on(&data_dir, &["backup", file.to_str().unwrap()]).expect(0);
    stage.run(&session_id, "say Remember this.");
    let path = format!("/v1/sessions/{session_id}/transcript");
    let transcript = stage.client.get(&path).text();
    stage.server.kill9();
    assert!(data_dir.join("runtime.sqlite3-wal").exists());
    run_on(&data_dir, &["restore", file.to_str().unwrap(), "--force"]).expect(0);
    let names = names_in(&data_dir);
    let is_database =
        |name: &&String| name.starts_with("runtime.sqlite3") && !name.ends_with("lock");
    let databases: Vec<&String> = names.iter().filter(is_database).collect();
    let [_, aside] = databases[..] else { panic!("{databases:?}") };
    // It goes back the same way.
    let aside = data_dir.join(aside);
    run_on(&data_dir, &["restore", aside.to_str().unwrap(), "--force"]).expect(0);
    stage.restart();
    assert_eq!(stage.client.get(&path).expect(200).text(), transcript);
}

/// A restore is killed before each of its changes: the database's place is never empty, and nothing of the old one is
/// lost, under whatever name.
#[test]
fn a_restore_that_is_killed_leaves_one_database_or_the_other() {
    let mut stage = Stage::new();
    let file = stage.server.folder().join("kept.sqlite3");
    let session_id = stage.session();
    run_on(stage.server.data_dir(), &["backup", file.to_str().unwrap()]).expect(0);
    stage.run(&session_id, "say Remember this.");
    stage.server.kill9();
    let old = ["runtime.sqlite3", "runtime.sqlite3-wal"]
        .map(|name| (name, fs::read(stage.server.data_dir().join(name)).unwrap()));
    let newest = |database: &Path| -> Option<i64> {
        let database = Connection::open(database).ok()?;
        database.query_row("SELECT max(row_id) FROM event", [], |row| row.get(0)).ok()
    };
    let newest_kept = newest(&file).unwrap();
    let newest_known = newest(&stage.server.data_dir().join("runtime.sqlite3")).unwrap();
    assert!(newest_kept < newest_known);
    let mut seen = [0, 0];
    for change in 1.. {
        let folder = TempDir::new("gg-restore-test");
        let data_dir = folder.path();
        fs::set_permissions(data_dir, fs::Permissions::from_mode(0o700)).unwrap();
        for (name, bytes) in &old {
            fs::write(data_dir.join(name), bytes).unwrap();
            fs::set_permissions(data_dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let words = ["restore", file.to_str().unwrap(), "--force", "--data-dir"];
        let words = [&words[..], &[data_dir.to_str().unwrap()]].concat();
        let said = run_and_kill_at(change, data_dir, &words);
        let is_whole = said.code.is_some();
        if is_whole {
            said.expect(0);
        }
        run_on(data_dir, &["verify"]).expect(0);
        let names = names_in(data_dir);
        let in_place = newest(&data_dir.join("runtime.sqlite3")).unwrap();
        assert!(in_place == newest_known || in_place == newest_kept, "{change}: {names:?}");
        let is_known = |name: &&String| newest(&data_dir.join(name)) == Some(newest_known);
        assert!(names.iter().any(|name| is_known(&name)), "{change}: {names:?}");
        if is_whole {
            assert_eq!(in_place, newest_kept);
            break;
        }
        seen[usize::from(in_place == newest_kept)] += 1;
    }
    assert!(seen[0] > 10 && seen[1] > 0, "{seen:?}");
}

/// The database is no database any more, or is gone and has left its log: neither gets into what is restored.
#[test]
fn a_backup_takes_the_place_of_what_is_damaged() {
    let mut stage = Stage::new();
    let data_dir = stage.server.data_dir().to_owned();
    let (database, log) = (data_dir.join("runtime.sqlite3"), data_dir.join("runtime.sqlite3-wal"));
    let file = stage.server.folder().join("kept.sqlite3");
    let session_id = stage.session();
    stage.run(&session_id, "say Remember this.");
    run_on(&data_dir, &["backup", file.to_str().unwrap()]).expect(0);
    let path = format!("/v1/sessions/{session_id}/transcript");
    let transcript = stage.client.get(&path).text();
    for is_gone in [false, true] {
        stage.run(&session_id, "say Forget this.");
        stage.server.kill9();
        assert!(log.exists());
        match is_gone {
            true => fs::remove_file(&database).unwrap(),
            false => fs::write(&database, "no database at all ".repeat(5000)).unwrap(),
        }
        run_on(&data_dir, &["restore", file.to_str().unwrap(), "--force"]).expect(0);
        assert!(proc::keepers_of(&data_dir).is_empty());
        run_on(&data_dir, &["verify"]).expect(0);
        stage.restart();
        assert_eq!(stage.client.get(&path).expect(200).text(), transcript);
    }
}

/// What is in the data folder now, by name.
fn names_in(data_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(data_dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_restore_that_finds_no_room_changes_nothing() {
    let mut stage = Stage::new();
    let data_dir = stage.server.data_dir().to_owned();
    let file = stage.server.folder().join("kept.sqlite3");
    let session_id = stage.session();
    run_on(&data_dir, &["backup", file.to_str().unwrap()]).expect(0);
    let turn_id = stage.start(&session_id, "slow 3 1000");
    stage.event(&session_id, "item.delta", 0);
    stage.server.kill9();
    let before = names_in(&data_dir);
    let words = ["restore", file.to_str().unwrap(), "--force", "--data-dir"];
    let words = [&words[..], &[data_dir.to_str().unwrap()]].concat();
    run_on_a_full_disk(&words).expect(1);
    assert_eq!(names_in(&data_dir), before);
    assert_eq!(proc::keepers_of(&data_dir).len(), 1, "its agents go on");
    stage.restart();
    let path = format!("/v1/sessions/{session_id}/turns/{turn_id}?wait_ms=30000");
    assert_eq!(stage.get(&path)["status"], "completed");
}

/// Neither the first one nor one in the place of another.
#[test]
fn a_backup_that_finds_no_room_leaves_nothing_behind_and_the_one_before() {
    let stage = Stage::new();
    let folder = TempDir::new("gg-backup-test");
    let file = folder.path().join("kept.sqlite3");
    let name = file.to_str().unwrap();
    let session_id = stage.session();
    stage.run(&session_id, "flood 100 1000");
    let words =
        ["backup", name, "--force", "--data-dir", stage.server.data_dir().to_str().unwrap()];
    let said = run_on_a_full_disk(&words).expect(1);
    assert!(said.stderr.contains(name), "{}", said.stderr);
    assert!(names_in(folder.path()).is_empty(), "{:?}", names_in(folder.path()));
    run_on(stage.server.data_dir(), &["backup", name]).expect(0);
    let before = fs::read(&file).unwrap();
    run_on_a_full_disk(&words).expect(1);
    assert_eq!(names_in(folder.path()), ["kept.sqlite3"]);
    assert!(fs::read(&file).unwrap() == before, "the backup was changed");
    assert_eq!(stage.run(&session_id, "say on")["assistant_text"], "on");
}

/// The database itself, by its name, a link and another hard link, as the backup that is made or restored.
#[test]
fn a_database_is_not_its_own_backup() {
    let mut stage = Stage::new();
    let data_dir = stage.server.data_dir().to_owned();
    let session_id = stage.session();
    stage.run(&session_id, "say before");
    let database = data_dir.join("runtime.sqlite3");
    let (link, hard) = (stage.server.folder().join("link"), stage.server.folder().join("hard"));
    std::os::unix::fs::symlink(&database, &link).unwrap();
    fs::hard_link(&database, &hard).unwrap();
    let log = data_dir.join("runtime.sqlite3-wal");
    for file in [&database, &link, &hard, &log] {
        let said = run_on(&data_dir, &["backup", file.to_str().unwrap(), "--force"]).expect(1);
        assert!(said.stderr.contains("the database itself"), "{}", said.stderr);
    }
    stage.run(&session_id, "say after");
    let transcript = stage.client.get(&format!("/v1/sessions/{session_id}/transcript")).text();
    stage.server.kill9();
    let before = names_in(&data_dir);
    for file in [&database, &link, &hard] {
        let said = run_on(&data_dir, &["restore", file.to_str().unwrap(), "--force"]).expect(1);
        assert!(said.stderr.contains("the database itself"), "{}", said.stderr);
    }
    assert_eq!(names_in(&data_dir), before);
    stage.restart();
    let path = format!("/v1/sessions/{session_id}/transcript");
    assert_eq!(stage.client.get(&path).expect(200).text(), transcript);
}

#[test]
fn what_is_no_database_is_not_restored_and_what_is_not_there_is_not_backed_up() {
    let folder = TempDir::new("gg-backup-test");
    let data_dir = folder.path().join("data");
    let file = folder.path().join("file");
    let name = file.to_str().unwrap();
    let said = run_on(&data_dir, &["backup", name]).expect(1);
    assert!(said.stderr.contains("there is no database"), "{}", said.stderr);
    fs::write(&file, "no database at all, but long enough to be looked at".repeat(100)).unwrap();
    run_on(&data_dir, &["restore", name]).expect(1);
    assert!(!data_dir.join("runtime.sqlite3").exists());
}

#[test]
fn verify_finds_a_missing_event_and_an_open_file() {
    let mut stage = Stage::new();
    let session_id = stage.session();
    stage.run(&session_id, "say whole");
    let data_dir = stage.server.data_dir().to_owned();
    // Beside a server that runs, and with an agent and a process at work.
    let sleep = json!({"command": "echo said; sleep 1000", "kill_grace_ms": 0});
    stage.client.post("/v1/processes", &sleep).expect(200);
    let turn_id = stage.start(&session_id, "slow 2000 2");
    stage.event(&session_id, "item.delta", 0);
    let said = run_on(&data_dir, &["verify"]).expect(0);
    assert!(said.stdout.lines().all(|line| line.starts_with("ok ")), "{}", said.stdout);
    assert!(said.stdout.contains("1 agents, 1 processes"), "{}", said.stdout);
    stage.interrupt(&session_id, &turn_id).expect(202);
    stage.ended(&session_id, &turn_id);
    stage.server.terminate();

    let gone = database(&data_dir)
        .execute("DELETE FROM event WHERE seq = 3 AND session_id IS NULL", [])
        .unwrap();
    assert!(gone > 0);
    fs::set_permissions(data_dir.join("auth/api-token"), fs::Permissions::from_mode(0o644))
        .unwrap();
    let said = run_on(&data_dir, &["verify", "--json"]).expect(1);
    let report = said.json();
    assert_eq!(report["status"], "fail");
    let failed: Vec<String> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["level"] == "fail")
        .map(|finding| format!("{} {}", text(finding, "check"), text(finding, "message")))
        .collect();
    assert!(failed.iter().any(|told| told.contains(&session_id)), "{failed:?}");
    assert!(failed.iter().any(|told| told.starts_with("modes ")), "{failed:?}");
}

/// As a kill leaves it that meets the first write of a first start, before there is a write-ahead log.
#[test]
fn a_database_whose_first_change_was_cut_off_is_the_servers_to_bring_in_order() {
    let folder = TempDir::new("cut-off");
    let (data_dir, other) = (folder.path().join("data"), folder.path().join("other"));
    fs::create_dir(&data_dir).unwrap();
    fs::set_permissions(&data_dir, fs::Permissions::from_mode(0o700)).unwrap();
    let writer = Connection::open(&other).unwrap();
    // What does not fit into this cache is in the file before the commit.
    let change = "PRAGMA cache_size = 1; BEGIN; CREATE TABLE a (x);
        INSERT INTO a SELECT zeroblob(100000) FROM (VALUES (1), (2), (3), (4));";
    writer.execute_batch(change).unwrap();
    fs::copy(&other, data_dir.join("runtime.sqlite3")).unwrap();
    fs::copy(folder.path().join("other-journal"), data_dir.join("runtime.sqlite3-journal"))
        .unwrap();
    let before = names_in(&data_dir);
    let said = run_on(&data_dir, &["verify"]).expect(1);
    let all = format!("{}{}", said.stdout, said.stderr);
    assert!(all.contains("was cut off") && all.contains("start the server"), "{all}");
    assert_eq!(names_in(&data_dir), before);
    let options = Options { data_dir: Some(data_dir.clone()), ..Options::default() };
    drop(Server::start(options));
    run_on(&data_dir, &["verify"]).expect(0);
}
