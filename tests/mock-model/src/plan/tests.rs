//! Stories of plans: a conversation as an agent sends it, and what the mock must answer.

use serde_json::json;

use super::*;

fn user(text: &str) -> Entry {
    Entry::User(text.into())
}

fn call(name: &str) -> Entry {
    Entry::Call(name.into())
}

fn output(text: &str) -> Entry {
    Entry::Output(text.into())
}

fn talk(entries: &[Entry], tools: &[&str]) -> Conversation {
    let tools = tools.iter().map(|name| Tool::plain(*name)).collect();
    Conversation { entries: entries.to_vec(), tools, ..Conversation::default() }
}

fn answer(entries: &[Entry], tools: &[&str]) -> Act {
    plan(&talk(entries, tools), &mut Memory::default()).act
}

fn say(text: &str) -> Act {
    Act::Say(text.into())
}

#[track_caller]
fn command_of(act: &Act) -> Vec<String> {
    let Act::Call(calls) = act else { panic!("not a call: {act:?}") };
    calls.iter().map(|call| call.input.object()["command"].as_str().unwrap().into()).collect()
}

#[test]
fn the_last_text_with_a_directive_decides() {
    assert_eq!(answer(&[user("SAY one"), user("SAY two")], &[]), say("two"));
    assert_eq!(answer(&[user("SAY one"), user("a note of the agent")], &[]), say("one"));
    let reminder = user("<system-reminder>\nSAY no\n</system-reminder>");
    assert_eq!(answer(&[user("SAY one"), reminder], &[]), say("one"));
    assert_eq!(answer(&[Entry::Assistant("SAY no".into())], &[]), say("mock: no directive"));
    assert_eq!(answer(&[], &[]), say("mock: no directive"));
}

#[test]
fn a_tool_directive_calls_and_then_tells_the_output() {
    let mut entries = vec![user("BASH ls")];
    assert_eq!(command_of(&answer(&entries, &["Bash"])), ["ls"]);
    entries.extend([call("Bash"), output("Exit 0\nOutput:\na.txt\n")]);
    assert_eq!(answer(&entries, &["Bash"]), say("tool said: a.txt"));
}

#[test]
fn several_directives_run_one_after_the_other() {
    let mut entries = vec![user("BASH one\nBASH two\nSAY done")];
    assert_eq!(command_of(&answer(&entries, &["bash"])), ["one"]);
    entries.extend([call("bash"), output("1")]);
    assert_eq!(command_of(&answer(&entries, &["bash"])), ["two"]);
    entries.extend([call("bash"), output("2")]);
    assert_eq!(answer(&entries, &["bash"]), say("done"));
}

#[test]
fn parallel_commands_are_one_answer() {
    let mut entries = vec![user("PAR one ;; two")];
    assert_eq!(command_of(&answer(&entries, &["bash"])), ["one", "two"]);
    entries.extend([call("bash"), call("bash"), output("1"), output("2")]);
    assert_eq!(answer(&entries, &["bash"]), say("tool said: 1 | 2"));
}

#[test]
fn a_script_carries_parallel_commands_in_one_call() {
    let mut conversation = talk(&[user("PAR a ;; b\nSAY done"), call("exec"), output("")], &[]);
    conversation.script_tool = Some(Tool::plain("exec"));
    assert_eq!(plan(&conversation, &mut Memory::default()).act, say("done"));
}

#[test]
fn earlier_calls_do_not_count_for_a_new_text() {
    let entries = [user("BASH one"), call("Bash"), output("1"), user("BASH two")];
    assert_eq!(command_of(&answer(&entries, &["Bash"])), ["two"]);
}

#[test]
fn thinking_belongs_to_the_answer_after_it() {
    let plan_of = |entries: &[Entry]| plan(&talk(entries, &["Bash"]), &mut Memory::default());
    let mut entries = vec![user("THINK first\nBASH ls\nTHINK then\nSAY done")];
    assert_eq!(plan_of(&entries).think.as_deref(), Some("first"));
    entries.extend([call("Bash"), output("")]);
    let last = plan_of(&entries);
    assert_eq!((last.think.as_deref(), last.act), (Some("then"), say("done")));
}

#[test]
fn usage_stays_for_the_answers_after_it() {
    let entries = [user("USAGE 1000 50\nBASH ls"), call("Bash"), output("x")];
    let last = plan(&talk(&entries, &["Bash"]), &mut Memory::default());
    assert_eq!(last.usage, Some(Usage { input: 1000, output: 50 }));
}

#[test]
fn a_tool_is_found_by_part_of_its_name_or_exactly() {
    let tools = ["mcp__echo__echo", "echo_more"];
    let Act::Call(calls) = answer(&[user("MCP echo__e {\"text\": \"x\"}")], &tools) else {
        panic!("no call")
    };
    assert_eq!(calls[0].tool.name, "mcp__echo__echo");
    assert_eq!(calls[0].input, Input::Json(json!({ "text": "x" })));
    let Act::Call(calls) = answer(&[user("TOOL echo_more")], &tools) else { panic!("no call") };
    assert_eq!(calls[0].tool.name, "echo_more");
    let missing = answer(&[user("MCP other {}")], &tools);
    assert_eq!(missing, say("mock: no tool whose name contains other"));
}

#[test]
fn a_deferred_tool_is_searched_for_first() {
    let tools = ["ToolSearch"];
    let mut entries = vec![user("MCP echo {}")];
    let Act::Call(calls) = answer(&entries, &tools) else { panic!("no call") };
    assert_eq!(calls[0].input.object()["query"], "echo");
    entries.extend([call("ToolSearch"), output("found mcp__echo__echo")]);
    let found = ["ToolSearch", "mcp__echo__echo"];
    let Act::Call(calls) = answer(&entries, &found) else { panic!("no call") };
    assert_eq!(calls[0].tool.name, "mcp__echo__echo");
    entries.extend([call("mcp__echo__echo"), output("echo:")]);
    assert_eq!(answer(&entries, &found), say("tool said: echo:"));
}

#[test]
fn a_search_that_finds_nothing_ends() {
    let mut entries = vec![user("MCP echo {}")];
    for _ in 0..SEARCHES_MAX {
        entries.extend([call("ToolSearch"), output("nothing")]);
    }
    let end = answer(&entries, &["ToolSearch"]);
    assert_eq!(end, say("mock: no tool whose name contains echo"));
}

#[test]
fn a_directive_that_cannot_be_followed_says_so() {
    assert_eq!(answer(&[user("BASH ls")], &[]), say("mock: no shell tool offered"));
    assert_eq!(answer(&[user("WRITE a b")], &[]), say("mock: no write tool offered"));
    let Act::Say(text) = answer(&[user("TOOL x {broken")], &["x"]) else { panic!("not said") };
    assert!(text.starts_with("mock: the input is not JSON"), "{text}");
}

#[test]
fn failures_are_read_from_their_word() {
    let fail = |text: &str| answer(&[user(text)], &[]);
    assert_eq!(fail("FAIL"), Act::Fail(Failure::Status(500)));
    assert_eq!(fail("FAIL 429"), Act::Fail(Failure::Status(429)));
    assert_eq!(fail("FAIL context"), Act::Fail(Failure::Context));
    assert_eq!(fail("FAIL drop"), Act::Fail(Failure::Drop));
    assert_eq!(fail("FAIL 200"), Act::Fail(Failure::Status(500)), "no success by that name");
}

#[test]
fn failing_once_is_per_text_and_not_used_up_by_a_side_question() {
    let mut memory = Memory::default();
    let mut ask = |text: &str, tools: &[&str]| plan(&talk(&[user(text)], tools), &mut memory).act;
    let failed = Act::Fail(Failure::Status(503));
    assert_eq!(ask("FAILONCE 503", &[]), failed, "a title is asked for");
    assert_eq!(ask("FAILONCE 503", &["Bash"]), failed);
    assert_eq!(ask("FAILONCE 503", &["Bash"]), say("recovered"));
    assert_eq!(ask("again\nFAILONCE 503", &["Bash"]), failed);
}

#[test]
fn history_tells_what_came_before() {
    let entries = [
        user("SAY plum"),
        Entry::Assistant("plum".into()),
        user("HISTORY"),
        Entry::Assistant("later".into()),
    ];
    let told = answer(&entries, &[]);
    assert_eq!(told, say("history: users=[\"SAY plum\"] assistants=[\"plum\"]"));
}

#[test]
fn numbers_are_bounded() {
    let slow = answer(&[user("SLOW 99999999 99999999")], &[]);
    let bound = Act::Slow { deltas: SLOW_DELTAS_MAX, pause_ms: SLOW_PAUSE_MS_MAX };
    assert_eq!(slow, bound);
    assert_eq!(answer(&[user("SLOW")], &[]), Act::Slow { deltas: 5, pause_ms: 200 });
}
