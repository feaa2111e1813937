//! What can a shell complete?

use clap_complete::{Shell, generate};

use crate::{
    command::{Command, ROOT},
    error::Error,
    flags::{Flag, GLOBAL},
};

/// The script for a shell.
pub(crate) fn script(shell: &str) -> Result<Vec<u8>, Error> {
    let shell = match shell {
        "bash" => Shell::Bash,
        "fish" => Shell::Fish,
        "powershell" => Shell::PowerShell,
        "zsh" => Shell::Zsh,
        other => return Err(Error::Usage(format!("unknown shell {other:?}: want bash, fish, powershell or zsh"))),
    };
    let mut script = Vec::new();
    generate(shell, &mut described(&ROOT), ROOT.name, &mut script);
    Ok(script)
}

fn described(command: &'static Command) -> clap::Command {
    let flags = command.sections.iter().chain([&GLOBAL]).flat_map(|section| section.flags).map(argument);
    let mut described = clap::Command::new(command.name)
        .about(command.help)
        .hide(command.hidden)
        .aliases(command.aliases)
        .disable_help_subcommand(true)
        .args(flags);
    for below in command.commands {
        described = described.subcommand(self::described(below));
    }
    described
}

fn argument(flag: &'static Flag) -> clap::Arg {
    let takes = if flag.kind.implied().is_some() { clap::ArgAction::SetTrue } else { clap::ArgAction::Append };
    let help = flag.help.lines().next().unwrap_or_default();
    let mut argument = clap::Arg::new(flag.name).long(flag.name).help(help).action(takes);
    if let Some(letter) = flag.short {
        argument = argument.short(letter);
    }
    argument
}
