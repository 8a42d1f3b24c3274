//! Deliveries that do not arrive, arrive later, or are asked for twice; and mail that is none.

use crate::crew::{Crew, prompts};
use crate::stage::{SOON, Stage, check_told, each, list, text};
use gooselake::limits::{MAIL_CHANGES, MAIL_LOOK};
use gooselake_harness::stream::Record;
use gooselake_harness::wait;
use rusqlite::Connection;
use serde_json::{Value, json};

const ONE_AGENT: &str = "[providers.demo]\nmax_instances = 1\nmax_sessions_per_instance = 1\n\
    [teams]\nmax_attempts = 2\nretry_pause_ms = 20\n";

#[test]
fn a_broadcast_reaches_all_but_the_sender_and_the_closed() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 4);
    stage.close(&crew.members[3]);
    let ack = crew.broadcast(&stage, "say hello", json!({})).expect(200).json();
    let deliveries = list(ack["deliveries"].clone());
    assert_eq!(deliveries.len(), 3);
    let mut ids = each(&deliveries, "recipient_agent_id");
    assert!(ids.is_sorted());
    ids.sort();
    for delivery in &deliveries {
        if delivery["recipient_agent_id"] == crew.members[3].as_str() {
            assert_eq!(delivery["status"], "failed");
            assert_eq!(delivery["last_error_code"], "recipient_session_closed");
        } else {
            let recipient = text(delivery, "recipient_agent_id");
            let turn = stage.ended(&recipient, &crew.injected(&stage, delivery));
            assert!(text(&turn["input"][0], "text").starts_with("<team_msg kind=\"broadcast\""));
        }
    }
    let all =
        crew.broadcast(&stage, "say again", json!({"include_sender": true})).expect(200).json();
    assert_eq!(list(all["deliveries"].clone()).len(), 4);
    let direct = crew.post(&stage, 3, "say no", json!({}));
    check_told(&direct, 409, "session_closed", &crew.members[3]);
    let view = stage.get(&crew.path("view?message_limit=1"));
    let first = text(&ack["message"], "id");
    assert_eq!(view["next_message_cursor"], first.as_str());
    assert_eq!(list(view["deliveries_by_message_id"][&first].clone()).len(), 3);
    let view = stage.get(&crew.path(&format!("view?message_cursor={first}")));
    assert_eq!(view["messages"][0]["id"], all["message"]["id"]);
    assert!(view["next_message_cursor"].is_null());
}

/// More than one change of the ledger takes is ended all the same, in steps behind what was told.
#[test]
fn much_mail_that_waits_ends_with_its_team_or_its_membership() {
    for (is_team, status, kind, end) in
        [(true, 204, "team.deleted", "cancelled"), (false, 200, "team.member_left", "failed")]
    {
        let stage = Stage::new();
        let crew = Crew::new(&stage, 3);
        stage.start(&crew.members[2], "slow 100000 20");
        let waiting: Vec<String> = (0..MAIL_CHANGES + 10)
            .map(|_| text(&crew.send(&stage, 2, "say late", json!({})), "id"))
            .collect();
        let path = match is_team {
            true => crew.path("").trim_end_matches('/').to_owned(),
            false => crew.path(&format!("members/{}", crew.members[2])),
        };
        let mut stream = crew.stream(&stage);
        stage.client.delete(&path).expect(status);
        let (mut ended, mut before) = (Vec::new(), 0);
        let ends = format!("team_delivery.{end}");
        stream.until_match("the end of all", SOON, |frame| {
            let record = frame.record();
            if record.kind == kind {
                before = ended.len();
            }
            if record.kind == ends {
                ended.push(text(&record.payload["delivery"], "id"));
            }
            ended.len() == waiting.len()
        });
        assert_eq!(before, MAIL_CHANGES, "{kind}");
        assert_eq!(ended, waiting, "{kind}: each once, and in order");
        let message = format!("the last message is told to be completed: {kind}");
        wait::until(SOON, &message, || {
            let told = crew.events(&stage);
            let is_completed = |it: &&Record| it.kind == "team_message.completed";
            (told.iter().filter(is_completed).count() == waiting.len()).then_some(())
        });
    }
}

/// However much other mail waits before it, that stays as it is.
#[test]
fn mail_of_a_deleted_team_ends_behind_mail_of_another_team() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let other = Crew::of(&stage, crew.members.clone());
    stage.start(&crew.members[1], "slow 100000 20");
    for _ in 0..=MAIL_LOOK {
        other.send(&stage, 1, "say stay", json!({}));
    }
    for _ in 0..MAIL_CHANGES + 10 {
        crew.send(&stage, 1, "say late", json!({}));
    }
    stage.client.delete(crew.path("").trim_end_matches('/')).expect(204);
    let waits = |crew: &Crew, word: &str| {
        let deliveries = list(stage.get(&crew.path("deliveries?limit=1000")));
        deliveries.iter().filter(|it| it["status"] == word).count()
    };
    wait::until(SOON, "all of it is cancelled", || {
        (waits(&crew, "cancelled") == MAIL_CHANGES + 10).then_some(())
    });
    assert_eq!(waits(&other, "pending") + waits(&other, "deferred"), MAIL_LOOK + 1);
}

/// Who leaves and joins again gets nothing of what waited before.
#[test]
fn who_joins_again_hears_nothing_of_what_waited_when_it_left() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 3);
    let member = &crew.members[2];
    let turn_id = stage.start(member, "slow 100000 20");
    for _ in 0..MAIL_CHANGES + 200 {
        crew.send(&stage, 2, "say late", json!({}));
    }
    stage.client.delete(&crew.path(&format!("members/{member}"))).expect(200);
    stage.client.post(&crew.path("members"), &json!({"agent_id": member})).expect(200);
    let fresh = crew.send(&stage, 2, "say fresh", json!({}));
    stage.interrupt(member, &turn_id).expect(202);
    let turn = stage.ended(member, &crew.injected(&stage, &fresh));
    assert_eq!(turn["assistant_text"], "fresh", "{turn}");
    let deliveries = list(stage.get(&crew.path("deliveries?limit=1000")));
    let failed = deliveries.iter().filter(|it| it["status"] == "failed").count();
    assert_eq!(failed, MAIL_CHANGES + 200);
}

/// A server that died when it had not ended all of it leaves the rest to the next one.
#[test]
fn mail_that_waits_in_a_team_that_is_gone_is_cancelled_by_the_next_start() {
    let mut stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    stage.start(&crew.members[1], "slow 100000 20");
    let delivery = crew.send(&stage, 1, "say late", json!({}));
    crew.told(&stage, &delivery, "deferred", "turn_running");
    stage.server.kill9();
    let database = Connection::open(stage.server.data_dir().join("runtime.sqlite3")).unwrap();
    assert_eq!(database.execute("UPDATE team SET deleted_at = 1", []).unwrap(), 1);
    drop(database);
    stage.restart();
    let kind = "team_delivery.cancelled";
    let path = format!("/v1/events/stream?control=false&kinds={kind}&until={kind}");
    let told = stage.client.stream(&path, &[]).expect(SOON).record();
    assert_eq!(told.payload["delivery"]["id"], delivery["id"]);
}

#[test]
fn mail_for_a_member_that_closes_or_leaves_has_failed() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 3);
    let waiting: Vec<Value> = [1, 2]
        .iter()
        .map(|member| {
            stage.start(&crew.members[*member], "slow 100000 20");
            let delivery = crew.send(&stage, *member, "say late", json!({}));
            crew.told(&stage, &delivery, "deferred", "turn_running");
            delivery
        })
        .collect();
    stage.close(&crew.members[1]);
    assert_eq!(crew.failed(&stage, &waiting[0]), "recipient_session_closed");
    stage.client.delete(&crew.path(&format!("members/{}", crew.members[2]))).expect(200);
    assert_eq!(crew.failed(&stage, &waiting[1]), "recipient_not_member");
    // What failed can be asked for again, and fails again while nothing has changed.
    let path = crew.path(&format!("deliveries/{}/retry", text(&waiting[0], "id")));
    let why = json!({"why": "x"});
    check_told(&stage.client.post(&path, &why), 400, "bad_request", "why");
    let again = stage.client.post(&path, &json!({})).expect(200).json();
    assert_eq!((&again["status"], &again["attempts"]), (&json!("pending"), &json!(0)));
    let mut stream = crew.stream(&stage);
    let mut failures = 0;
    stream.until_match("it has failed once more", crate::stage::SOON, |frame| {
        failures += usize::from(
            frame.event == "team_delivery.failed" && frame.data.contains(&text(&waiting[0], "id")),
        );
        failures == 2
    });
}

#[test]
fn attempts_without_room_are_made_again_until_there_are_enough() {
    let stage = Stage::with_config(ONE_AGENT);
    let sleeper = stage.session();
    let worker = stage.session();
    let crew = Crew::of(&stage, vec![worker, sleeper]);
    let running = stage.start(&crew.members[0], "slow 100000 20");
    let delivery = crew.send(&stage, 1, "say awake", json!({}));
    let waiting = crew.told(&stage, &delivery, "deferred", "retry");
    assert_eq!(waiting["last_error_code"], "capacity");
    assert!(waiting["next_attempt_at"].as_i64() > waiting["updated_at"].as_i64(), "{waiting}");
    assert_eq!(crew.failed(&stage, &delivery), "capacity");
    assert_eq!(crew.delivery(&stage, &delivery)["attempts"], 2);
    stage.interrupt(&crew.members[0], &running).expect(202);
    stage.ended(&crew.members[0], &running);
    let path = crew.path(&format!("deliveries/{}/retry", text(&delivery, "id")));
    stage.client.post(&path, &json!({})).expect(200);
    let turn = stage.ended(&crew.members[1], &crew.injected(&stage, &delivery));
    assert_eq!(turn["assistant_text"], "awake");
    check_told(&stage.client.post(&path, &json!({})), 409, "conflict", "injected");
}

#[test]
fn a_message_is_taken_back_while_it_waits() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 3);
    let member = &crew.members[1];
    let running = stage.start(member, "slow 100000 20");
    let delivery = crew.send(&stage, 1, "say never", json!({}));
    crew.told(&stage, &delivery, "deferred", "turn_running");
    let path = crew.path(&format!("messages/{}/cancel", text(&delivery, "message_id")));
    check_told(&stage.client.post(&path, &json!({"why": "x"})), 400, "bad_request", "why");
    let cancelled = stage.client.post(&path, &json!({})).expect(200).json();
    assert_eq!(cancelled[0]["status"], "cancelled");
    assert_eq!(cancelled[0]["deferred_reason"], "turn_running");
    check_told(&stage.client.post(&path, &json!({})), 409, "conflict", "cancelled");
    // One that has reached a member is not taken back from the others.
    let ack = crew.broadcast(&stage, "say both", json!({})).expect(200).json();
    for delivery in list(ack["deliveries"].clone()) {
        let is_idle = delivery["recipient_agent_id"] == crew.members[2].as_str();
        crew.told(&stage, &delivery, if is_idle { "injected" } else { "deferred" }, "");
    }
    let path = crew.path(&format!("messages/{}/cancel", text(&ack["message"], "id")));
    check_told(&stage.client.post(&path, &json!({})), 409, "conflict", "injected");
    let waiting = list(stage.get(&crew.path("deliveries?status=deferred")));
    assert_eq!(waiting.len(), 1, "the refusal has changed nothing");
    stage.interrupt(member, &running).expect(202);
    let turn = stage.ended(member, &crew.injected(&stage, &waiting[0]));
    assert_eq!(turn["assistant_text"], "both");
}

#[test]
fn a_senders_key_is_good_for_one_message() {
    let mut stage = Stage::new();
    let crew = Crew::new(&stage, 3);
    let key = json!({"idempotency_key": "k1"});
    let first = crew.post(&stage, 1, "say once", key.clone()).expect(200).json();
    let delivery = first["deliveries"][0].clone();
    crew.injected(&stage, &delivery);
    stage.restart();
    let again = crew.post(&stage, 1, "say once", key.clone()).expect(200).json();
    assert_eq!((&again["disposition"], &again["message"]), (&json!("existing"), &first["message"]));
    assert_eq!(again["deliveries"][0]["status"], "injected");
    for (to, prompt) in [(1, "say twice"), (2, "say once")] {
        let reply = crew.post(&stage, to, prompt, key.clone());
        check_told(&reply, 409, "idempotency_mismatch", "k1");
    }
    // The keys of broadcasts are others, and a repeat is answered also when the recipient is gone.
    let broadcast = crew.broadcast(&stage, "say all", key.clone()).expect(200).json();
    assert_eq!(broadcast["disposition"], "created");
    stage.close(&crew.members[1]);
    let again = crew.post(&stage, 1, "say once", key).expect(200).json();
    assert_eq!(again["disposition"], "existing");
    let header = [("Idempotency-Key", "h1")];
    let body = json!({
        "sender_agent_id": crew.members[0], "recipient_agent_id": crew.members[2],
        "input": ["say header"],
    });
    let first = stage.post_with(&crew.path("messages"), &body, &header).expect(200).json();
    let again = stage.post_with(&crew.path("messages"), &body, &header).expect(200).json();
    assert_eq!(first["message"]["id"], again["message"]["id"]);
    assert_eq!(again["disposition"], "existing");
}

#[test]
fn what_can_not_be_sent_is_refused_by_its_field() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let outsider = stage.session();
    let cases = [
        (json!({"input": []}), 400, "bad_request", "input"),
        (json!({"input": {"text": "x"}}), 400, "bad_request", "input"),
        (json!({"input": [{"type": "sound"}]}), 400, "bad_request", "input[0]"),
        (json!({"priority": "HIGH!"}), 400, "bad_request", "priority"),
        (json!({"policy": "now"}), 400, "bad_request", "policy"),
        (json!({"image_paths": ["dot.png"]}), 400, "bad_request", "image_paths[0]"),
        (json!({"sender_agent_id": outsider}), 409, "conflict", "sender_agent_id"),
        (json!({"recipient_agent_id": outsider}), 409, "conflict", "recipient_agent_id"),
        (json!({"recipient_agent_id": " "}), 400, "bad_request", "recipient_agent_id"),
        (json!({"colour": 1}), 400, "bad_request", "colour"),
        (json!({"idempotency_key": "k".repeat(256)}), 400, "bad_request", "idempotency_key"),
    ];
    for (fields, status, code, part) in cases {
        check_told(&crew.post(&stage, 1, "say no", fields), status, code, part);
    }
    let alone = Crew::of(&stage, vec![stage.session()]);
    let reply = alone.broadcast(&stage, "say no", json!({}));
    check_told(&reply, 409, "conflict", "no other member");
    assert_eq!(stage.get(&crew.path("messages"))["messages"], json!([]));
    for path in ["messages?cursor=msg_none", "messages?limit=x", "deliveries?status=lost"] {
        check_told(&stage.client.get(&crew.path(path)), 400, "bad_request", "");
    }
    let off = Stage::with_config("[teams]\nenabled = false\n");
    let session = off.session();
    let reply = off.client.post("/v1/teams", &json!({"name": "a", "lead_agent_id": session}));
    check_told(&reply, 409, "conflict", "teams are off");
}

/// A message that is taken back while it is on its way either arrives, and the sender is told so, or is never heard.
#[test]
fn a_message_is_taken_back_or_arrives_whoever_is_first() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let mut wanted = Vec::new();
    for number in 0..40 {
        let words = format!("say {number}");
        let delivery = crew.send(&stage, 1, &words, json!({}));
        let path = crew.path(&format!("messages/{}/cancel", text(&delivery, "message_id")));
        match stage.client.post(&path, &json!({})).status {
            200 => assert_eq!(crew.delivery(&stage, &delivery)["status"], "cancelled"),
            409 => wanted.push(words),
            other => panic!("{words}: {other}"),
        }
    }
    let last = crew.send(&stage, 1, "say last", json!({}));
    stage.ended(&crew.members[1], &crew.injected(&stage, &last));
    wanted.push("say last".to_owned());
    let turns = list(stage.get(&format!("/v1/sessions/{}/turns", crew.members[1])));
    let heard = turns.iter().flat_map(prompts).filter(|words| words.starts_with("say "));
    assert_eq!(heard.collect::<Vec<_>>(), wanted, "each once, but what was taken back");
}
