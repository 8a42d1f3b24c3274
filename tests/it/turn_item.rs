//! What a turn is made of: items, their deltas, and the transcript that a client begins with.

use crate::stage::{SOON, Stage, each, list, records, text};
use gooselake_harness::stream::Record;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::time::Instant;

/// The items as the events alone tell them: by `item.started`, deltas, and `item.completed`.
///
/// Panics: a delta belongs to no open item, or the deltas do not add up to the text of the completion.
fn added_up(events: &[Record]) -> HashMap<String, Value> {
    let mut texts: HashMap<(String, String), String> = HashMap::new();
    let mut items: HashMap<String, Value> = HashMap::new();
    for event in events {
        let item = &event.payload["item"];
        match event.kind.as_str() {
            "item.started" => drop(items.insert(text(item, "item_id"), item.clone())),
            "item.delta" => {
                let item_id = text(&event.payload, "item_id");
                let open = &items[&item_id];
                assert_eq!(open["status"], "in_progress", "a delta behind the end: {event:?}");
                if let Some(delta) = event.payload["delta"].as_str() {
                    let field = text(&event.payload, "field");
                    texts.entry((item_id, field)).or_default().push_str(delta);
                }
            }
            "item.completed" => {
                let item_id = text(item, "item_id");
                let delta = texts.get(&(item_id.clone(), "text".to_owned()));
                if let (Some(delta), true) = (delta, items.contains_key(&item_id)) {
                    assert_eq!(&item["text"], delta.as_str(), "{item}");
                }
                items.insert(item_id, item.clone());
            }
            _ => {}
        }
    }
    items
}

#[test]
fn deltas_add_up_to_what_the_completion_holds() {
    let stage = Stage::new();
    let session_id = stage.session();
    let prompt =
        "think about the weather\nsay it rains\nslow 30 1\nflood 2000 50\nrun seq 300\nsay ü€😀";
    let turn = stage.run(&session_id, prompt);
    let items = stage.items(&session_id, &text(&turn, "id"));
    assert_eq!(
        each(&items, "type"),
        [
            "user_message",
            "reasoning",
            "assistant_message",
            "assistant_message",
            "assistant_message",
            "command",
            "assistant_message",
            "assistant_message"
        ]
    );
    assert!(items.iter().all(|item| item["status"] == "completed"), "{items:?}");
    assert_eq!(items[1]["text"], "about the weather");
    assert_eq!(items[4]["text"].as_str().unwrap().len(), 2000 * 50);
    let told = added_up(&stage.events(&session_id));
    for item in &items {
        assert_eq!(&told[&text(item, "item_id")], item);
    }
    let said: Vec<&str> = items
        .iter()
        .filter(|item| item["type"] == "assistant_message")
        .map(|item| item["text"].as_str().unwrap())
        .collect();
    assert_eq!(turn["assistant_text"], said.join("\n\n"));
}

#[test]
fn a_plan_is_told_step_by_step_and_kept_as_it_ended() {
    let stage = Stage::new();
    let session_id = stage.session();
    let turn = stage.run(&session_id, "plan look; think; act");
    let mut events = stage.events(&session_id);
    events.retain(|event| event.kind == "plan.updated");
    let steps = |entries: &Value| each(entries.as_array().unwrap(), "status").join(" ");
    assert_eq!(steps(&events[0].payload["entries"]), "pending pending pending");
    assert_eq!(steps(&events.last().unwrap().payload["entries"]), "completed completed completed");
    let items = stage.items(&session_id, &text(&turn, "id"));
    let plan = items.iter().find(|item| item["type"] == "plan").unwrap();
    assert_eq!(each(plan["entries"].as_array().unwrap(), "content"), ["look", "think", "act"]);
}

#[test]
fn a_command_has_its_output_and_its_exit_code() {
    let stage = Stage::new();
    let session_id = stage.session();
    let turn = stage.run(&session_id, "run echo out; echo err >&2; exit 7");
    let items = stage.items(&session_id, &text(&turn, "id"));
    let command = items.iter().find(|item| item["type"] == "command").unwrap();
    assert_eq!(command["command"], "echo out; echo err >&2; exit 7", "{command}");
    assert_eq!(command["cwd"], stage.cwd.to_str().unwrap(), "{command}");
    assert_eq!((&command["exit_code"], &command["status"]), (&json!(7), &json!("failed")));
    let output = text(command, "output");
    assert!(output.contains("out\n") && output.contains("err\n"), "{output}");
}

#[test]
fn a_file_change_shows_what_changed() {
    let stage = Stage::new();
    let session_id = stage.session();
    fs::write(stage.cwd.join("old.txt"), "before\n").unwrap();
    let turn = stage.run(&session_id, "write new.txt fresh\nwrite old.txt after");
    let mut items = stage.items(&session_id, &text(&turn, "id"));
    items.retain(|item| item["type"] == "file_change");
    assert_eq!(items.len(), 2, "{items:?}");
    for (item, name, kind, lines) in [
        (&items[0], "new.txt", "add", &["+fresh"][..]),
        (&items[1], "old.txt", "modify", &["-before", "+after"]),
    ] {
        let change = &item["changes"][0];
        assert_eq!(change["path"], stage.cwd.join(name).to_str().unwrap(), "{item}");
        assert_eq!((&change["kind"], &item["status"]), (&json!(kind), &json!("completed")));
        let diff = text(change, "diff");
        assert!(lines.iter().all(|line| diff.lines().any(|other| other == *line)), "{diff}");
    }
}

/// An MCP server over stdio, as small as a shell can have it: it answers each request in turn.
const MCP_SERVER: &str = r#"#!/bin/sh
while read -r line; do
  id=$(printf %s "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  case $line in
    *'"initialize"'*)
      result='{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},'
      result=$result'"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"tools/call"'*) result='{"content":[{"type":"text","text":"'"$GREETING $1"'"}]}' ;;
    *) result='{}' ;;
  esac
  [ -n "$id" ] && printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
"#;

#[test]
fn an_mcp_server_of_the_session_is_the_agents_to_call() {
    let stage = Stage::new();
    let script = stage.server.folder().join("mcp.sh");
    fs::write(&script, MCP_SERVER).unwrap();
    let server = json!({"name": "sh", "command": "/bin/sh", "args": [script, "world"],
        "env": {"GREETING": "hello"}});
    let session = stage.create(&json!({"mode": "auto", "mcp_servers": [server]}));
    let session_id = text(&session, "id");
    let turn = stage.run(&session_id, r#"mcp sh greet {"who": "me"}"#);
    assert_eq!(turn["assistant_text"], "hello world");
    let items = stage.items(&session_id, &text(&turn, "id"));
    let call = items.iter().find(|item| item["type"] == "tool_call").unwrap();
    assert_eq!((&call["server"], &call["tool"]), (&json!("sh"), &json!("greet")), "{call}");
    assert_eq!((&call["arguments"], &call["status"]), (&json!({"who": "me"}), &json!("completed")));
    assert!(call["result"].to_string().contains("hello world"), "{call}");
    let turn = stage.run(&session_id, "mcp none tool {}");
    let items = stage.items(&session_id, &text(&turn, "id"));
    assert!(items.iter().any(|item| item["type"] == "tool_call" && item["status"] == "failed"));
}

#[test]
fn a_transcript_and_the_stream_behind_it_are_the_whole() {
    let stage = Stage::new();
    let session_id = stage.session();
    stage.run(&session_id, "say before");
    let turn_id = stage.start(&session_id, "slow 60 10\nsay after");
    // In the middle of the message.
    let mut stream = stage.stream(&session_id, "?control=false&kinds=item.delta");
    stream.until_match("some deltas", SOON, |frame| frame.data.contains("20 "));
    let path = format!("/v1/sessions/{session_id}/transcript");
    let reply = stage.client.get(&path).expect(200);
    let as_of: i64 = reply.header("x-as-of-seq").unwrap().parse().unwrap();
    let mut items = list(reply.json());
    let open = items.last_mut().unwrap();
    assert_eq!(open["status"], "in_progress", "{open}");
    let open_id = text(open, "item_id");
    let mut grown = text(open, "text");
    assert!(grown.starts_with("1 2 3 "), "{grown}");
    let query = format!("?control=false&after_seq={as_of}&until=turn.completed");
    let events = records(&stage.stream(&session_id, &query).rest(SOON));
    for event in &events {
        match event.kind.as_str() {
            "item.delta" if event.payload["item_id"] == open_id.as_str() => {
                grown += event.payload["delta"].as_str().unwrap();
            }
            "item.completed" => {
                let item = event.payload["item"].clone();
                if item["item_id"] == open_id.as_str() {
                    assert_eq!(item["text"], grown.as_str());
                }
                items.retain(|other| other["item_id"] != item["item_id"]);
                items.push(item);
            }
            _ => {}
        }
    }
    stage.ended(&session_id, &turn_id);
    assert_eq!(items, list(stage.get(&path)));
    assert_eq!(items.len(), 5);
}

#[test]
fn a_transcript_is_read_in_pages() {
    let stage = Stage::new();
    let session_id = stage.session();
    for number in 0..4 {
        stage.run(&session_id, &format!("say {number}"));
    }
    let path = format!("/v1/sessions/{session_id}/transcript");
    let whole = list(stage.get(&path));
    let mut seen = Vec::new();
    let mut next = String::new();
    loop {
        let reply = stage.client.get(&format!("{path}?limit=3{next}")).expect(200);
        assert!(reply.header("x-as-of-seq").is_some());
        seen.extend(list(reply.json()));
        let Some(cursor) = reply.header("x-next-cursor") else { break };
        next = format!("&cursor={cursor}");
    }
    assert_eq!((seen.len(), &seen), (8, &whole));
}

#[test]
fn text_moves_the_time_of_its_session_once_a_second_at_most() {
    let stage = Stage::new();
    let session_id = stage.session();
    let mut stream = stage.stream(&session_id, "?control=false&kinds=item.delta");
    stage.start(&session_id, "slow 300 5");
    let begun = Instant::now();
    let (mut deltas, mut times) = (0, BTreeSet::new());
    loop {
        let delta = stream.expect(SOON).record();
        deltas += 1;
        times.insert(stage.record(&session_id)["updated_at"].as_i64().unwrap());
        if delta.payload["delta"].as_str().unwrap().contains("299 ") {
            break;
        }
    }
    // Each whole second, and the first delta of all.
    let most = usize::try_from(begun.elapsed().as_secs()).unwrap() + 2;
    assert!(times.len() >= 2 && times.len() <= most, "{} times in {deltas} deltas", times.len());
    assert!(deltas > 2 * most, "{deltas} deltas prove nothing");
}
