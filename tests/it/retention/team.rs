//! Teams that are gone: purged when they are old, or when somebody says so; cut off in the middle of it; and what those
//! see who still look at them.

use crate::command::run_on;
use crate::crew::{Crew, kinds};
use crate::stage::{SOON, Stage, check_told, each, list, records, text};
use gooselake_harness::temp::TempDir;
use gooselake_harness::wait;
use rusqlite::{Connection, OpenFlags, params};
use serde_json::json;

/// So much mail that its purge takes a while.
const MANY: i64 = 30_000;

impl Crew {
    fn root(&self) -> String {
        format!("/v1/teams/{}", self.id)
    }

    fn purge(&self, stage: &Stage) -> gooselake_harness::client::Reply {
        stage.client.delete(&format!("{}?purge=true", self.root()))
    }

    /// A message that has arrived, and whose turn is over.
    fn read_mail(&self, stage: &Stage, prompt: &str) {
        let delivery = self.send(stage, 1, prompt, json!({}));
        let turn_id = self.injected(stage, &delivery);
        stage.ended(&self.members[1], &turn_id);
    }

    /// Nothing of it is there any more.
    #[track_caller]
    fn check_gone(&self, stage: &Stage) {
        let rest =
            ["", "/events", "/messages", "/deliveries", "/operations", "/view", "/events/stream"];
        for rest in rest {
            let reply = stage.client.get(&format!("{}{rest}", self.root()));
            check_told(&reply, 404, "not_found", &self.id);
        }
        let kinds = "team.*,team_message.*,team_delivery.*,team_operation.*";
        let log = stage.client.get(&format!("/v1/events?limit=10000&kinds={kinds}")).expect(200);
        let log = log.text();
        assert!(!log.contains(&self.id), "the log still tells of it: {log}");
    }
}

fn database(stage: &Stage) -> Connection {
    Connection::open(stage.server.data_dir().join("runtime.sqlite3")).unwrap()
}

/// Changes the database while no server runs, then starts one.
fn restart_after(stage: &mut Stage, change: impl FnOnce(&Connection)) {
    stage.server.terminate();
    change(&database(stage));
    stage.server.restart();
    stage.client = crate::contract::client(&stage.server);
}

fn age(database: &Connection, team_id: &str, days: i64) {
    let sql = "UPDATE team SET deleted_at = deleted_at - ?2, created_at = created_at - ?2
               WHERE team_id = ?1";
    let changed = database.execute(sql, params![team_id, days * 24 * 3600 * 1000]).unwrap();
    assert_eq!(changed, 1);
}

fn await_gone(stage: &Stage, crew: &Crew) {
    wait::until(SOON, "the team is gone", || {
        let reply = stage.client.get(&format!("{}/events", crew.root()));
        (reply.status == 404).then_some(())
    });
}

#[test]
fn a_team_that_was_deleted_long_ago_goes_whole_and_the_others_stay() {
    let mut stage = Stage::with_config("[teams]\nretention_days = 7\n");
    let members = vec![stage.session(), stage.session()];
    let [old, young, open] = [(); 3].map(|()| Crew::of(&stage, members.clone()));
    for crew in [&old, &young, &open] {
        crew.read_mail(&stage, "say read");
    }
    for crew in [&old, &young] {
        stage.client.delete(&crew.root()).expect(204);
    }
    let spawner = json!({"source_session_id": members[0], "title": "Helper"});
    stage.client.post(&open.path("members/spawn"), &spawner).expect(200);
    restart_after(&mut stage, |database| {
        age(database, &old.id, 8);
        age(database, &young.id, 6);
        // No deletion, no age.
        age(database, &open.id, 9);
    });
    await_gone(&stage, &old);
    old.check_gone(&stage);
    for crew in [&young, &open] {
        assert_eq!(kinds(&crew.events(&stage))[0], "team.created");
        let deliveries = list(stage.get(&crew.path("deliveries")));
        assert!(each(&deliveries, "status").contains(&"injected".to_owned()), "{deliveries:?}");
    }
    assert_eq!(list(stage.get(&open.path("operations"))).len(), 1);
    assert_eq!(list(stage.get(&open.path("view"))["team"]["members"].clone()).len(), 3);
    // Its members and what they were told stay: that is theirs.
    let turns = list(stage.get(&format!("/v1/sessions/{}/turns", members[1])));
    assert_eq!(turns.iter().filter(|turn| turn["source"] == "team").count(), 3);
    open.read_mail(&stage, "say more");
    run_on(stage.server.data_dir(), &["verify"]).expect(0);
}

#[test]
fn a_purge_ends_a_team_and_a_deleted_one_can_be_purged_later() {
    let stage = Stage::new();
    let members = vec![stage.session(), stage.session()];
    let [now, later, kept] = [(); 3].map(|()| Crew::of(&stage, members.clone()));
    for crew in [&now, &later, &kept] {
        crew.read_mail(&stage, "say read");
    }
    let teams = stage.client.get("/v1/teams?limit=3").expect(200);
    let cursor = teams.header("x-next-cursor").unwrap().to_owned();
    now.purge(&stage).expect(204);
    now.check_gone(&stage);
    check_told(&now.purge(&stage), 404, "not_found", &now.id);

    stage.client.delete(&later.root()).expect(204);
    assert_eq!(list(stage.get(&later.path("messages"))["messages"].clone()).len(), 1);
    let twice = stage.client.delete(&later.root());
    check_told(&twice, 404, "not_found", &later.id);
    later.purge(&stage).expect(204);
    later.check_gone(&stage);

    kept.read_mail(&stage, "say again");
    assert_eq!(list(stage.get(&kept.path("messages"))["messages"].clone()).len(), 2);
    kept.purge(&stage).expect(204);
    // A page goes on where the one before ended, whatever was purged: no number comes again.
    let new = Crew::of(&stage, members);
    let rest = list(stage.get(&format!("/v1/teams?cursor={cursor}")));
    assert_eq!(rest.iter().map(|team| text(&team["team"], "id")).collect::<Vec<_>>(), [new.id]);
    run_on(stage.server.data_dir(), &["verify"]).expect(0);
}

#[test]
fn what_is_under_way_in_a_team_is_not_purged_under_it() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let delivery = crew.send(&stage, 1, "slow 100000 20", json!({}));
    let turn_id = crew.injected(&stage, &delivery);
    let refused = crew.purge(&stage);
    check_told(&refused, 409, "conflict", "under way");
    assert_eq!(text(&crew.delivery(&stage, &delivery), "status"), "injected");
    assert_eq!(stage.get("/v1/teams"), json!([]), "it is deleted, though");
    stage.interrupt(&crew.members[1], &turn_id).expect(202);
    stage.ended(&crew.members[1], &turn_id);
    crew.purge(&stage).expect(204);
    crew.check_gone(&stage);
}

#[test]
fn who_still_looks_at_a_purged_team_sees_nothing_of_another() {
    let mut stage = Stage::new();
    let members = vec![stage.session(), stage.session()];
    let purged = Crew::of(&stage, members.clone());
    purged.read_mail(&stage, "say read");
    let mut stream = purged.stream(&stage);
    let first = stream.until("team_message.completed", SOON)[0].record().row_id;
    purged.purge(&stage).expect(204);
    // The next log that begins would have the key of the one that ended, and goes on behind its end.
    let next = Crew::of(&stage, members);
    for _ in 0..3 {
        next.read_mail(&stage, "say secret");
    }
    assert!(next.events(&stage).len() > 10);
    check_told(&stage.client.get(&purged.path("events/stream")), 404, "not_found", &purged.id);
    let newest = list(stage.get("/v1/events?limit=1&order=desc"))[0]["row_id"].clone();
    for (cursor, resume) in [(json!(first), "pruned"), (newest, "ok")] {
        let path = format!("/v1/events/stream?after_seq={cursor}&limit=0");
        let opened = stage.client.stream(&path, &[]).expect(SOON);
        assert_eq!(opened.json()["resume"], resume, "from {cursor}");
    }
    // With the server its stream ends: the end of its team was all that it had to tell.
    stage.server.terminate();
    let told = records(&stream.rest(SOON));
    assert_eq!(kinds(&told), ["team.deleted"]);
    assert_eq!(told[0].json["team_id"], purged.id.as_str());
}

/// A server that dies in the middle of a purge: what is left is whole, can be backed up, and goes with the next start.
#[test]
fn a_purge_that_is_cut_off_by_a_kill_goes_on_with_the_next_start() {
    let mut stage = Stage::with_config("[teams]\nretention_days = 7\n");
    let (old, kept) = (Crew::new(&stage, 2), Crew::new(&stage, 2));
    for crew in [&old, &kept] {
        crew.read_mail(&stage, "say read");
    }
    let kept_events = kept.events(&stage).len();
    stage.client.delete(&old.root()).expect(204);
    restart_after(&mut stage, |database| {
        fill(database, &old.id);
        age(database, &old.id, 8);
    });
    let path = stage.server.data_dir().join("runtime.sqlite3");
    let reader = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let count = || -> i64 {
        let sql = "SELECT count(*) FROM team_delivery JOIN team USING (team_key)
                   WHERE team_id = ?1";
        reader.query_row(sql, [&old.id], |row| row.get(0)).unwrap()
    };
    wait::until(SOON, "the purge is at work", || (count() < MANY).then_some(()));
    stage.server.kill9();
    let left = count();
    assert!(left > 0, "it was over before the kill");
    let folder = TempDir::new("gg-purge-test");
    let copy = folder.path().join("copy.sqlite3");
    run_on(stage.server.data_dir(), &["verify"]).expect(0);
    run_on(stage.server.data_dir(), &["backup", copy.to_str().unwrap()]).expect(0);
    assert_eq!(count(), left);
    drop(reader);
    stage.server.restart();
    stage.client = crate::contract::client(&stage.server);
    await_gone(&stage, &old);
    old.check_gone(&stage);
    assert_eq!(kept.events(&stage).len(), kept_events);
    kept.read_mail(&stage, "say on");
    run_on(stage.server.data_dir(), &["verify"]).expect(0);
    // Nothing hangs in the air: no row of any table names it.
    let database = database(&stage);
    let rows = |sql: &str| -> i64 { database.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(rows("SELECT count(*) FROM team"), 1);
    assert_eq!(rows("SELECT count(*) FROM team_member"), 2);
    assert_eq!(rows("SELECT count(*) FROM team_message"), 2);
    assert_eq!(rows("SELECT count(*) FROM scope WHERE kind = 'team'"), 1);
}

/// Many copies of the only message of a team, and of its delivery.
fn fill(database: &Connection, team_id: &str) {
    let text = format!(
        "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {MANY})
         INSERT INTO team_message (message_id, team_key, scope, sender_agent_id,
             recipient_agent_ids, input, image_paths, content, priority, policy, body_hash,
             created_at)
         SELECT 'msg_copy_' || n, team_key, scope, sender_agent_id, recipient_agent_ids, input,
             image_paths, content, priority, policy, body_hash, team_message.created_at
         FROM team JOIN team_message USING (team_key), number WHERE team_id = '{team_id}';
         INSERT INTO team_delivery (delivery_id, message_key, team_key, recipient_agent_id, status,
             rank, policy, created_at, updated_at)
         SELECT 'dlv_copy_' || message_key, message_key, team_key, sender_agent_id, 'injected', 1,
             policy, created_at, created_at
         FROM team_message WHERE message_id GLOB 'msg_copy_*';"
    );
    database.execute_batch(&text).unwrap();
}
