//! The commands, one row each: the words that select it, its syntax and help, the level it needs, its handler. Look-up,
//! `help` and the candidates for unknown commands all read this table.

use remora_config::plan::CliLevel;
use remora_config::plan::CliLevel::{Admin, Operator, User};

use super::cmd::{Answer, info, misc, peers, servers, sess, stat, table, tune};
use super::line::Words;
use super::session::Context;
use super::similar;
use crate::observe::log::Severity;

/// A row.
pub(super) struct Command {
    /// First words.
    pub(super) words: &'static [&'static str],
    pub(super) syntax: &'static str,
    pub(super) help: &'static str,
    /// Lowest level that may run it; lower ones do not see it in `help` either.
    pub(super) level: CliLevel,
    pub(super) run: fn(&mut Context, &Words) -> Answer,
}

const fn row(
    words: &'static [&'static str],
    syntax: &'static str,
    help: &'static str,
    level: CliLevel,
    run: fn(&mut Context, &Words) -> Answer,
) -> Command {
    Command {
        words,
        syntax,
        help,
        level,
        run,
    }
}

/// All of them, in the order of `help`; the last three end every list.
#[rustfmt::skip]
pub(super) static COMMANDS: &[Command] = &[
    row(&["clear", "counters"], "clear counters [all]", "reset the maxima of the statistics, or all counters", Operator, tune::clear_counters),
    row(&["clear", "table"], "clear table <table> [<filter>]*", "remove entries from a table (filter: data/key/ptr)", Operator, table::clear),
    row(&["disable", "server"], "disable server <bk>/<srv>", "put a server into maintenance", Admin, servers::disable),
    row(&["echo"], "echo <text>", "print the text", User, misc::echo),
    row(&["enable", "server"], "enable server <bk>/<srv>", "end the maintenance of a server", Admin, servers::enable),
    row(&["get", "weight"], "get weight <bk>/<srv>", "show the weight of a server", User, servers::get_weight),
    row(&["operator"], "operator", "lower the level of this connection to operator", User, misc::operator),
    row(&["set", "maxconn", "frontend"], "set maxconn frontend <frontend> <n>", "change the connection limit of a frontend", Admin, tune::maxconn_frontend),
    row(&["set", "maxconn", "global"], "set maxconn global <n>", "change the connection limit of the process", Admin, tune::maxconn_global),
    row(&["set", "maxconn", "server"], "set maxconn server <bk>/<srv> <n>", "change the connection limit of a server", Admin, servers::set_maxconn),
    row(&["set", "server"], "set server <bk>/<srv> [opts]", "change the state or the weight of a server", Admin, servers::set),
    row(&["set", "severity-output"], "set severity-output [none|number|string]", "show the severity of messages", User, misc::severity_output),
    row(&["set", "table"], "set table <table> key <k> [data.* <v>]*", "create or change an entry of a table", Operator, table::set),
    row(&["set", "timeout"], "set timeout [cli] <delay>", "change the idle limit of this connection", User, misc::set_timeout),
    row(&["set", "weight"], "set weight <bk>/<srv> <n>[%]", "change the weight of a server", Admin, servers::set_weight),
    row(&["show", "backend"], "show backend", "list the backends", User, servers::show_backend),
    row(&["show", "cli", "level"], "show cli level", "show the level of this connection", User, misc::show_level),
    row(&["show", "cli", "sockets"], "show cli sockets", "list the CLI sockets", Operator, misc::show_sockets),
    row(&["show", "env"], "show env [var]", "show environment variables", Operator, misc::show_env),
    row(&["show", "info"], "show info [desc|json|typed]*", "show facts and counters of the process", User, info::show),
    row(&["show", "peers"], "show peers [dict|-] [<section>]", "show the state of peers (dict: and of their lineages and tables)", Operator, peers::show),
    row(&["show", "servers", "state"], "show servers state [<backend>]", "dump the state of the servers", Operator, servers::show_state),
    row(&["show", "sess"], "show sess [<id>|all] [<filter>]*", "list the sessions (filter: backend/frontend/server/older)", Operator, sess::show),
    row(&["show", "stat"], "show stat [desc|json|no-maint|typed|up]*", "show the counters of proxies and servers", User, stat::show),
    row(&["show", "table"], "show table <table> [<filter>]*", "list the tables, or dump one (filter: data/key/ptr; key K origins: shares of nodes)", User, table::show),
    row(&["show", "version"], "show version", "show the version of this process", User, misc::show_version),
    row(&["shutdown", "session"], "shutdown session <id>", "end a session", Admin, sess::shutdown),
    row(&["shutdown", "sessions", "server"], "shutdown sessions server <bk>/<srv>", "end the sessions of a server", Admin, sess::shutdown_of_server),
    row(&["user"], "user", "lower the level of this connection to user", User, misc::user),
    row(&["help"], "help [<command>]", "list matching or all commands", User, help),
    row(&["prompt"], "prompt [help | n | i | p | timed]*", "change the interactive mode", User, misc::prompt),
    row(&["quit"], "quit", "disconnect", User, misc::quit),
];

/// Runs one command.
pub(super) fn run(cx: &mut Context, words: &Words) -> Answer {
    match find(words) {
        Some(command) if cx.level < command.level => {
            Answer::Message(Severity::Err, "Permission denied".into())
        }
        Some(command) => (command.run)(cx, words),
        None => unknown(cx, words),
    }
}

/// The command with the most words among those that begin this line.
fn find(words: &Words) -> Option<&'static Command> {
    COMMANDS
        .iter()
        .filter(|c| matching(c, words) == c.words.len())
        .max_by_key(|c| c.words.len())
}

/// How many of the command's words the line begins with.
fn matching(command: &Command, words: &Words) -> usize {
    command
        .words
        .iter()
        .enumerate()
        .take_while(|(i, w)| words.at(*i) == w.as_bytes())
        .count()
}

fn help(cx: &mut Context, words: &Words) -> Answer {
    let mut text = String::from("The following commands are valid at this level:\n");
    let typed = words.from(1);
    let shown = COMMANDS.iter().filter(|c| {
        typed.iter().enumerate().all(|(i, t)| match c.words.get(i) {
            // The last word may be a beginning.
            Some(w) if i + 1 == typed.len() => w.as_bytes().starts_with(t),
            Some(w) => w.as_bytes() == t.as_slice(),
            None => i > 0,
        })
    });
    list(cx.level, shown, &mut text);
    Answer::Text(text.into_bytes())
}

fn unknown(cx: &Context, words: &Words) -> Answer {
    if let Some(name) = similar::haproxy_command(words) {
        return Answer::Message(
            Severity::Err,
            format!("'{name}' is a HAProxy command that Remora does not support."),
        );
    }
    let typed = words.text(0);
    let best = COMMANDS
        .iter()
        .map(|c| matching(c, words))
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    if best > 0 {
        // The beginning is right: everything that begins so, narrowed by the first wrong word if that leaves any.
        let same = |c: &&Command| matching(c, words) == best;
        let next = words.text(best);
        let narrow = |c: &&Command| {
            c.words
                .get(best)
                .is_some_and(|w| !next.is_empty() && similar::alike(w, &next))
        };
        let narrowed: Vec<_> = COMMANDS.iter().filter(same).filter(narrow).collect();
        text.push_str(&candidates_head(&words_of(words)));
        if narrowed.is_empty() {
            list(cx.level, COMMANDS.iter().filter(same), &mut text);
        } else {
            list(cx.level, narrowed.into_iter(), &mut text);
        }
    } else {
        let near: Vec<_> = COMMANDS
            .iter()
            .filter(|c| c.words.iter().any(|w| similar::alike(w, &typed)))
            .collect();
        text.push_str(&candidates_head(&typed));
        list(cx.level, near.into_iter(), &mut text);
    }
    Answer::Message(Severity::Info, text)
}

fn candidates_head(typed: &str) -> String {
    format!(
        "Unknown command: '{}', but maybe one of the following ones is a better match:\n",
        typed.escape_debug()
    )
}

fn words_of(words: &Words) -> String {
    let shown: Vec<_> = (0..words.len().min(3)).map(|i| words.text(i)).collect();
    shown.join(" ")
}

/// Appends the rows that this level may use, always ending with help, prompt and quit.
fn list<'c>(level: CliLevel, commands: impl Iterator<Item = &'c Command>, text: &mut String) {
    let ending = |c: &Command| matches!(c.words, ["help" | "prompt" | "quit"]);
    let chosen = commands.filter(|c| !ending(c) && c.level <= level);
    let end = COMMANDS.iter().filter(|c| ending(c));
    for c in chosen.chain(end) {
        text.push_str(&format!("  {:<40}: {}\n", c.syntax, c.help));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_row_wins_and_rows_are_found_by_their_words() {
        assert_eq!(
            find(&Words::of("set maxconn server be/s1 5"))
                .unwrap()
                .words,
            ["set", "maxconn", "server"]
        );
        assert_eq!(
            find(&Words::of("show table x")).unwrap().words,
            ["show", "table"]
        );
        assert!(find(&Words::of("show")).is_none());
        assert!(find(&Words::of("showtable")).is_none());
        for c in COMMANDS {
            assert_eq!(find(&Words::of(&c.words.join(" "))).unwrap().words, c.words);
        }
    }

    #[test]
    fn lists_end_with_help_prompt_quit_and_keep_to_the_level() {
        let mut text = String::new();
        list(User, COMMANDS.iter(), &mut text);
        assert!(text.contains("  show table <table> [<filter>]*          : "));
        assert!(!text.contains("clear table"));
        let last: Vec<_> = text
            .lines()
            .rev()
            .take(3)
            .map(|l| l.trim_start().split(' ').next().unwrap())
            .collect();
        assert_eq!(last, ["quit", "prompt", "help"]);
    }
}
