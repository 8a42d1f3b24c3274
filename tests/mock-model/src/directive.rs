//! Directives: the lines of a user text that say what the mock answers.
//!
//! Owns: the list of directives and how a line is read. Pure. Promises: a text without a directive
//! yields an empty list, and no line can make it fail. Deliberately does not know what a directive
//! leads to; that is `plan`.

/// What a directive line asks for. The words in the text are these names in capitals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `SAY text`: the text, in several deltas.
    Say,
    /// `THINK text`: a reasoning block before the next directive's answer.
    Think,
    /// `SLOW n [ms]`: n deltas, 200 ms (or ms) apart.
    Slow,
    /// `BASH command`: a call of the agent's shell tool.
    Bash,
    /// `BASHBG command`: the same, asking to leave the sandbox where the tool has such a flag.
    BashBg,
    /// `WRITE path content`: a call of the agent's file-writing tool.
    Write,
    /// `PAR command ;; command`: several shell calls in one answer.
    Par,
    /// `PARBG command ;; command`: the same, each asking to leave the sandbox.
    ParBg,
    /// `MCP name json`: a call of the offered tool whose name contains `name`.
    Mcp,
    /// `TOOL name json`: a call of exactly that tool.
    Tool,
    /// `FAIL [status|context|failed|stream|drop]`: an error.
    Fail,
    /// `FAILONCE [...]`: the error the first time this text is asked, then "recovered".
    FailOnce,
    /// `HOLD`: the first delta, then nothing until the gate opens.
    Hold,
    /// `HISTORY`: which earlier texts the request carried.
    History,
    /// `USAGE in out`: the token figures of the answers from here on.
    Usage,
}

const VERBS: [(&str, Verb); 15] = [
    ("SAY", Verb::Say),
    ("THINK", Verb::Think),
    ("SLOW", Verb::Slow),
    ("BASH", Verb::Bash),
    ("BASHBG", Verb::BashBg),
    ("WRITE", Verb::Write),
    ("PARBG", Verb::ParBg),
    ("PAR", Verb::Par),
    ("MCP", Verb::Mcp),
    ("TOOL", Verb::Tool),
    ("FAIL", Verb::Fail),
    ("FAILONCE", Verb::FailOnce),
    ("HOLD", Verb::Hold),
    ("HISTORY", Verb::History),
    ("USAGE", Verb::Usage),
];

/// One directive line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// What it asks for.
    pub verb: Verb,
    /// What follows the word, without the spaces around it.
    pub argument: String,
    /// The line as it was written, without the spaces around it.
    pub line: String,
}

/// The directives of a text, in order.
pub fn directives(text: &str) -> Vec<Directive> {
    text.lines().filter_map(directive).collect()
}

fn directive(line: &str) -> Option<Directive> {
    let line = line.trim();
    let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(line.len());
    let (word, argument) = line.split_at(end);
    let (_, verb) = VERBS.iter().find(|(name, _)| *name == word)?;
    Some(Directive { verb: *verb, argument: argument.trim().into(), line: line.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(Verb, &str)]) {
        let found = directives(text);
        let found: Vec<_> = found.iter().map(|d| (d.verb, d.argument.as_str())).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn a_line_is_a_directive_when_it_begins_with_one_of_the_words() {
        check("SAY hello  there ", &[(Verb::Say, "hello  there")]);
        check("  SAY indented", &[(Verb::Say, "indented")]);
        check("HOLD", &[(Verb::Hold, "")]);
        check("BASHBG ls", &[(Verb::BashBg, "ls")]);
        check("FAILONCE 429", &[(Verb::FailOnce, "429")]);
        check("TOOL\tname {}", &[(Verb::Tool, "name {}")]);
    }

    #[test]
    fn other_text_is_none() {
        check("", &[]);
        check("Please SAY hello", &[]);
        check("SAYING hello", &[]);
        check("SAY_NOT this", &[]);
        check("say hello", &[]);
        check("日本語", &[]);
    }

    #[test]
    fn several_lines_keep_their_order() {
        check(
            "look:\nTHINK first\r\nUSAGE 10 2\nBASH ls\n\nSAY done",
            &[
                (Verb::Think, "first"),
                (Verb::Usage, "10 2"),
                (Verb::Bash, "ls"),
                (Verb::Say, "done"),
            ],
        );
    }
}
