//! Who wants one more than there is: that is refused with the bound, and what is within it goes on.

use crate::crew::Crew;
use crate::hostile_agent::{ends, opening};
use crate::stage::{Stage, check_told, list, text};
use gooselake::limits;
use gooselake_harness::proof;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::fs;

#[test]
fn a_turn_too_many_in_the_queue_is_refused_until_one_is_taken_out() {
    let mut stage = Stage::new();
    let session_id = stage.session();
    stage.start(&session_id, "slow 100000 20");
    let queued: Vec<String> =
        (0..limits::QUEUED_TURNS).map(|_| stage.queue(&session_id, "say queued")).collect();
    let body = json!({"input": ["say too many"], "when": "queue"});
    let told = format!("{} turns wait", limits::QUEUED_TURNS);
    check_told(&stage.post_turn(&session_id, &body), 409, "conflict", &told);
    stage.server.kill9();
    stage.restart();
    check_told(&stage.post_turn(&session_id, &body), 409, "conflict", &told);
    stage.interrupt(&session_id, &queued[0]).expect(202);
    stage.ended(&session_id, &queued[0]);
    stage.queue(&session_id, "say in its place");
    check_told(&stage.post_turn(&session_id, &body), 409, "conflict", &told);
    stage.close(&session_id);
    proof::closed_log(&stage.events(&session_id));
}

/// A server with a session whose ACP agent is this shell script between the handshake and the end of its turn, which is
/// told to begin. Gives what the script has written to the file `heard`, line by line.
fn heard(script: &str) -> (Stage, String, Vec<Value>) {
    // Reads a line of the client and writes it down.
    let hear = "hear() { read -r l; printf '%s\\n' \"$l\" >> heard; }\n";
    let whole = [&opening(), hear, script, "\n", &ends("end_turn"), "read l\n"].concat();
    let arguments = json!(["-c", whole]);
    let stage = Stage::with_config(&format!(
        "[providers.acp]\ncommand = \"/bin/sh\"\nargs = {arguments}\nclient_terminal = true\n"
    ));
    let session_id = stage.agent_session();
    let turn = stage.run(&session_id, "go");
    assert_eq!(turn["status"], "completed", "{turn}");
    let heard = fs::read_to_string(stage.cwd.join("heard")).unwrap();
    let heard = heard.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (stage, session_id, heard)
}

#[test]
fn a_terminal_too_many_is_refused_until_one_is_released() {
    let most = limits::TERMINALS;
    let script = r#"
        head='{"jsonrpc":"2.0","id":%s,"method":"terminal/%s","params":{"sessionId":"s",'
        create() {
            printf "$head"'"command":"sleep","args":["1000"]}}\n' $1 create
            hear
        }
        n=1; while [ $n -le MOST ]; do create $((100 + n)); n=$((n + 1)); done
        tell() {
            printf "$head"'"terminalId":"%s"}}\n' $1 $2 "$id"
            hear
        }
        create 201
        id=$(sed -n '1s/.*"terminalId":"\([^"]*\)".*/\1/p' heard)
        tell 202 kill; tell 203 wait_for_exit; tell 204 release
        create 205"#;
    let (stage, session_id, heard) = heard(&script.replace("MOST", &most.to_string()));
    let ids: Vec<i64> = heard.iter().map(|answer| answer["id"].as_i64().unwrap()).collect();
    let asked = (101..=100 + i64::try_from(most).unwrap()).chain(201..=205);
    assert!(asked.eq(ids.iter().copied()), "{ids:?}");
    let is_open = |answer: &Value| answer["result"]["terminalId"].is_string();
    assert!(heard[..most].iter().all(is_open), "{heard:?}");
    let refused = heard[most]["error"]["message"].as_str().unwrap_or_default();
    assert!(refused.contains(&format!("{most} terminals are open")), "{}", heard[most]);
    assert!(is_open(&heard[most + 4]), "{heard:?}");
    stage.close(&session_id);
    proof::nothing_runs_in(&stage.cwd);
}

#[test]
fn a_question_too_many_is_refused_and_the_others_are_told() {
    let most = limits::PENDING_APPROVALS;
    let script = r#"
        ask='{"jsonrpc":"2.0","id":%s,"method":"session/request_permission","params":{'
        ask="$ask"'"sessionId":"s","toolCall":{"toolCallId":"call-%s","title":"x"},'
        ask="$ask"'"options":[{"optionId":"no","name":"No","kind":"reject_once"}]}}\n'
        n=1; while [ $n -le MOST ]; do printf "$ask" $((1000 + n)) $n; n=$((n + 1)); done
        printf "$ask" 2001 last
        hear"#;
    let (stage, session_id, heard) = heard(&script.replace("MOST", &most.to_string()));
    let refused = &heard[0]["error"]["message"];
    assert_eq!((&heard[0]["id"], refused), (&json!(2001), &json!("too many requests are open")));
    let events = stage.events(&session_id);
    let asked = events.iter().filter(|event| event.kind == "approval.requested").count();
    assert_eq!(asked, most);
    proof::log(&events);
}

#[test]
fn a_message_too_many_is_refused_until_one_is_taken_back_and_a_broadcast_leaves_who_has_them_out() {
    let mut stage = Stage::new();
    let crew = Crew::new(&stage, 3);
    stage.start(&crew.members[1], "slow 100000 20");
    let first = crew.send(&stage, 1, "say first", json!({}));
    crew.told(&stage, &first, "deferred", "turn_running");
    stage.server.kill9();
    // All but the last of those that may wait are copies of the first.
    let copies = i64::try_from(limits::MAIL_WAITING).unwrap() - 2;
    let database = Connection::open(stage.server.data_dir().join("runtime.sqlite3")).unwrap();
    let sql = "WITH RECURSIVE copy(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copy WHERE n < ?1)
         INSERT INTO team_delivery (delivery_id, message_key, team_key, recipient_agent_id,
             provider, status, rank, policy, deferred_reason, created_at, updated_at)
         SELECT delivery_id || '_' || n, message_key, team_key, recipient_agent_id,
             provider, status, rank, policy, deferred_reason, created_at, updated_at
         FROM team_delivery, copy";
    assert_eq!(database.execute(sql, [copies]).unwrap() + 2, limits::MAIL_WAITING);
    drop(database);
    stage.restart();
    let last = crew.send(&stage, 1, "say last", json!({}));
    let told = format!("{} messages wait", limits::MAIL_WAITING);
    check_told(&crew.post(&stage, 1, "say too many", json!({})), 503, "capacity", &told);
    let ack = crew.broadcast(&stage, "say all", json!({})).expect(200).json();
    for delivery in list(ack["deliveries"].clone()) {
        let is_full = delivery["recipient_agent_id"] == crew.members[1].as_str();
        assert_eq!(delivery["status"] == "failed", is_full, "{ack}");
        assert_eq!(delivery["last_error_code"] == "capacity", is_full, "{ack}");
    }
    let path = crew.path(&format!("messages/{}/cancel", text(&last, "message_id")));
    stage.client.request("POST", &path, &[], b"").expect(200);
    crew.send(&stage, 1, "say in its place", json!({}));
    check_told(&crew.post(&stage, 1, "say too many", json!({})), 503, "capacity", &told);
}
