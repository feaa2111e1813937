//! Which commands are there, what do they take, and what does their help say?

use std::fmt::Write as _;

use crate::flags::{
    EVENT_OTHER, FILTERS, FLOW_FORMAT, FORMATTING, Flag, GLOBAL, LIST_FORMAT, OTHER, RAW_FILTERS, SELECTORS, SERVER,
    STATUS_FORMAT, Section,
};

/// A command and the commands below it.
#[derive(Debug)]
pub(crate) struct Command {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    /// Arguments after the flags.
    pub arguments: &'static str,
    pub help: &'static str,
    pub sections: &'static [Section],
    pub commands: &'static [Command],
    /// Not listed.
    pub hidden: bool,
    /// Does something itself, not only by its subcommands.
    pub runnable: bool,
}

const NONE: Command = Command {
    name: "",
    aliases: &[],
    arguments: "",
    help: "",
    sections: &[],
    commands: &[],
    hidden: false,
    runnable: true,
};

const FLOW_SECTIONS: &[Section] = &[SELECTORS, FILTERS, RAW_FILTERS, FORMATTING, FLOW_FORMAT, SERVER, OTHER];
const EVENT_SECTIONS: &[Section] = &[SELECTORS, FORMATTING, SERVER, EVENT_OTHER];

/// The command `hubble`.
pub(crate) const ROOT: Command = Command {
    name: "hubble",
    help: "Look at the traffic of a cluster: which connections there are, which are dropped, and why.",
    runnable: false,
    commands: &[
        Command {
            name: "completion",
            arguments: "bash|fish|powershell|zsh",
            help: "Print completions for a shell",
            ..NONE
        },
        Command {
            name: "config",
            help: "Show or change the configuration",
            commands: &[
                Command { name: "get", arguments: "[KEY]", help: "Print one value of the configuration", ..NONE },
                Command { name: "reset", arguments: "[KEY]", help: "Forget one or all values of the file", ..NONE },
                Command { name: "set", arguments: "KEY [VALUE]", help: "Write a value to the file", ..NONE },
                Command { name: "view", help: "Print the configuration in force", ..NONE },
            ],
            runnable: false,
            ..NONE
        },
        Command { name: "help", arguments: "[COMMAND]", help: "Print help for a command", ..NONE },
        Command {
            name: "list",
            help: "List what the server knows",
            commands: &[
                Command {
                    name: "namespaces",
                    aliases: &["namespace", "ns"],
                    help: "Namespaces with recent flows",
                    sections: &[LIST_FORMAT, SERVER],
                    ..NONE
                },
                Command { name: "nodes", aliases: &["node"], help: "Nodes", sections: &[LIST_FORMAT, SERVER], ..NONE },
            ],
            sections: &[SERVER],
            runnable: false,
            ..NONE
        },
        Command {
            name: "observe",
            help: "Print flows and events",
            sections: FLOW_SECTIONS,
            commands: &[
                Command { name: "agent-events", help: "Print events of the agent", sections: EVENT_SECTIONS, ..NONE },
                Command { name: "debug-events", help: "Print debug messages", sections: EVENT_SECTIONS, ..NONE },
                Command { name: "flows", help: "Print flows", sections: FLOW_SECTIONS, ..NONE },
            ],
            ..NONE
        },
        Command {
            name: "reflect",
            help: "Print the API by the server's reflection",
            sections: &[SERVER],
            hidden: true,
            ..NONE
        },
        Command { name: "status", help: "Print how the server is", sections: &[STATUS_FORMAT, SERVER], ..NONE },
        Command { name: "version", help: "Print the version", ..NONE },
        Command {
            name: "watch",
            aliases: &["w"],
            help: "Watch what the server knows",
            commands: &[Command {
                name: "peers",
                aliases: &["peer"],
                help: "Observers that come and go",
                sections: &[SERVER],
                ..NONE
            }],
            sections: &[SERVER],
            hidden: true,
            runnable: false,
            ..NONE
        },
    ],
    ..NONE
};

impl Command {
    /// The command below with this name.
    pub(crate) fn find(&self, name: &str) -> Option<&'static Command> {
        self.commands.iter().find(|command| command.name == name || command.aliases.contains(&name))
    }

    /// All flags that it understands: its own, and the server's and global ones, which stand before commands as well.
    pub(crate) fn flags(&self) -> impl Iterator<Item = &'static Flag> {
        self.sections.iter().chain([&SERVER, &GLOBAL]).flat_map(|section| section.flags)
    }

    /// Its help; `path` is how it was called.
    pub(crate) fn usage(&self, path: &str) -> String {
        let mut text = format!("{}\n\nUsage:\n", self.help);
        if self.runnable {
            let arguments = if self.arguments.is_empty() { String::new() } else { format!(" {}", self.arguments) };
            add(&mut text, format_args!("  {path}{arguments} [flags]\n"));
        }
        if !self.commands.is_empty() {
            add(&mut text, format_args!("  {path} [command]\n"));
        }
        if !self.aliases.is_empty() {
            add(&mut text, format_args!("\nAliases:\n  {}, {}\n", self.name, self.aliases.join(", ")));
        }
        if !self.commands.is_empty() {
            text.push_str("\nAvailable Commands:\n");
            let width = self.commands.iter().map(|command| command.name.len()).max().unwrap_or(0).max(11);
            for command in self.commands.iter().filter(|command| !command.hidden) {
                add(&mut text, format_args!("  {:width$} {}\n", command.name, command.help));
            }
        }
        for section in self.sections.iter().chain([&GLOBAL]) {
            add(&mut text, format_args!("\n{} Flags:\n{}", section.title, usages(section.flags)));
        }
        text.push_str("\nGet help:\n  -h, --help\tHelp for any command or subcommand\n");
        if !self.commands.is_empty() {
            add(&mut text, format_args!("\nUse \"{path} [command] --help\" for more information about a command.\n"));
        }
        text
    }
}

/// Writing to a string cannot fail.
fn add(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(arguments);
}

/// Flags with their values and texts in two columns.
fn usages(flags: &[Flag]) -> String {
    let heads: Vec<String> = flags.iter().map(head).collect();
    let width = heads.iter().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for (flag, head) in flags.iter().zip(&heads) {
        let indent = format!("\n{:width$}   ", "");
        let help = flag.help.replace('\n', &indent);
        add(&mut text, format_args!("{head:width$}   {help}{}\n", default(flag)));
    }
    text
}

fn head(flag: &Flag) -> String {
    let short = flag.short.map_or("      ".to_owned(), |letter| format!("  -{letter}, "));
    let label = flag.kind.label();
    let gap = if label.is_empty() { "" } else { " " };
    format!("{short}--{}{gap}{label}", flag.name)
}

fn default(flag: &Flag) -> String {
    match (flag.kind, flag.default) {
        (_, "" | "false" | "[]") => String::new(),
        (crate::flags::Kind::Text, value) => format!(" (default \"{value}\")"),
        (_, value) => format!(" (default {value})"),
    }
}
