//! `completions`: prints the script with which a shell completes our command line. The package installs the three
//! scripts; the verb is for hosts and shells that search elsewhere.

use std::process::ExitCode;

use clap::{Args, Command, ValueEnum};
use clap_complete::{Shell, generate};

use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The shell
    shell: Target,
}

/// The shells for which the package has completions.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Target {
    Bash,
    Fish,
    Zsh,
}

/// Prints the script for `grammar`, which is the whole command line.
pub(crate) fn run(arguments: &Arguments, grammar: &Command) -> anyhow::Result<ExitCode> {
    let shell = match arguments.shell {
        Target::Bash => Shell::Bash,
        Target::Fish => Shell::Fish,
        Target::Zsh => Shell::Zsh,
    };
    let mut grammar = visible(grammar);
    let name = grammar.get_name().to_owned();
    let mut script = Vec::new();
    generate(shell, &mut grammar, name, &mut script);
    // clap_complete 4.6 interprets the hyphen of our name as the beginning of a verb in half of what it writes for
    // bash.
    let script = String::from_utf8_lossy(&script).replace(
        "buildbot__subcmd__conda__subcmd__",
        "buildbot__conda__subcmd__",
    );
    output::print(match arguments.shell {
        Target::Bash => script + BASH,
        Target::Fish => script + FISH,
        Target::Zsh => with_candidates(&script),
    })
}

/// Instances and other words that only the host knows. bash splits words at `@`; the line itself contains them unsplit.
const BASH: &str = r#"
_buildbot_conda_with_candidates() {
    _buildbot__conda "$@"
    local line=${COMP_LINE:0:COMP_POINT} words current before
    current=${line##*[[:space:]]}
    [[ $current == -* ]] && return 0
    read -ra words <<<"${line%"$current"}"
    mapfile -t words < <(buildbot-conda candidates -- "${words[@]:1}" 2>/dev/null)
    ((${#words[@]})) || return 0
    before=${current%"${current##*@}"}
    mapfile -t words < <(compgen -W "${words[*]}" -- "$current")
    COMPREPLY=("${words[@]#"$before"}")
}
complete -F _buildbot_conda_with_candidates -o nosort -o bashdefault -o default buildbot-conda
"#;

/// The same.
const FISH: &str = r#"
complete -c buildbot-conda -a "(buildbot-conda candidates -- (commandline -opc)[2..-1] 2>/dev/null)"
"#;

/// The same, instead of the files that clap proposes for an arbitrary word.
fn with_candidates(script: &str) -> String {
    let function = r#"
_buildbot_conda_candidates() {
    local -a found
    found=(${(f)"$(buildbot-conda candidates -- ${words_typed[2,-2]} 2>/dev/null)"})
    if (( $#found )); then compadd -a found; else _default; fi
}

_buildbot-conda() {
    local -a words_typed
    words_typed=("${(@)words[1,CURRENT]}")
"#;
    script
        .replacen("\n_buildbot-conda() {\n", function, 1)
        .replace(":_default' \\", ":_buildbot_conda_candidates' \\")
}

/// The command without its hidden verbs and options: the generators would offer them as well.
fn visible(command: &Command) -> Command {
    let options = command
        .get_arguments()
        .filter(|option| !option.is_hide_set());
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let copy = Command::new(command.get_name().to_owned())
        .about(command.get_about().cloned().unwrap_or_default())
        .args(options.cloned())
        .subcommands(verbs.map(visible));
    match command.get_version() {
        Some(version) => copy.version(version.to_owned()),
        None => copy,
    }
}
