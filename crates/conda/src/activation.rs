//! The decision: facts about a prefix and inherited variables to the environment of a command. It follows
//! `_build_activate_stack` of conda 26.7 for level 0, and what a bash makes of the result.
//!
//! Better than conda on purpose: values and prefixes may hold quotes, dollars and backticks (conda writes them into
//! shell text without escaping); a lower-case `path` is as reserved as `PATH`.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::inherited::Inherited;
use crate::prefix::{merge, shown};
use crate::state::Variables;
use crate::{Environment, PrefixFacts, Root, prompt, python};

/// The value with which conda marks a variable that is not to be set, not even by a package.
const UNSET: &str = "***unset***";

/// The name whose value is conda's business alone: dropped with a warning.
const RESERVED: &str = "PATH";

/// Names that activation gives to one function together with the environment's own; conda fails on the collision.
const COLLIDING: [&str; 4] = [
    "CONDA_PREFIX",
    "CONDA_SHLVL",
    "CONDA_DEFAULT_ENV",
    "CONDA_PROMPT_MODIFIER",
];

/// Names that bash keeps read-only, so that its `export` fails.
const READ_ONLY: [&str; 6] = [
    "BASHOPTS",
    "BASH_VERSINFO",
    "EUID",
    "PPID",
    "SHELLOPTS",
    "UID",
];

/// What bash reads, or forgets, at its start; with scripts, such a variable is exported inside of bash.
const LATE: [&str; 4] = ["BASH_ENV", "ENV", "PS1", "PS2"];

/// How to activate, beyond which prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Refuse a prefix without `conda-meta`. conda itself requires it of a path, not of a name.
    pub require_conda_meta: bool,
    /// The argument of `conda activate`, which the scripts see as `$2`; `None` for none.
    pub target: Option<OsString>,
    /// Upper-case the names of the environment's variables (condarc's `envvars_force_uppercase`).
    pub upper_case: bool,
    /// condarc's `env_prompt`; `None` for `changeps1: false`.
    pub prompt: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let prompt = Some("({default_env}) ".to_owned());
        Self {
            require_conda_meta: true,
            target: None,
            upper_case: true,
            prompt,
        }
    }
}

/// The outcome of the decision.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Activation {
    /// The complete environment for the command, or for the scripts where there are any.
    pub environment: Environment,
    /// What activation has set in it, changed or not.
    pub set: Environment,
    /// The inherited names that are gone.
    pub unset: BTreeSet<OsString>,
    /// The `activate.d` scripts to source, in order.
    pub scripts: Vec<PathBuf>,
    /// Warnings for the user, in order.
    pub warnings: Vec<Warning>,
    /// Of `set`, the names that must not be in bash's environment when it starts.
    pub(crate) late: Vec<OsString>,
    /// What the scripts see as `$2`.
    pub(crate) target: Option<OsString>,
}

/// Something that was done, or left, in a way that may surprise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The inherited variable has another value; it is kept in a backup variable.
    Overwritten(String),
    /// Set by a package and by `conda env config vars`, which wins.
    Duplicate(String),
    /// The variable belongs to conda itself; the value from the environment is ignored.
    Reserved(String),
    /// No shell can export a variable of this name, so conda's activation sets none either.
    NotExportable(String),
    /// The prefix has no `conda-meta`, which conda does not ask for when it finds a prefix by name.
    NoCondaMeta(PathBuf),
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overwritten(name) => {
                write!(
                    formatter,
                    "`{name}` of the environment replaces a different inherited value"
                )
            }
            Self::Duplicate(name) => {
                write!(
                    formatter,
                    "`{name}` is set by a package and by the environment, whose value is used"
                )
            }
            Self::Reserved(name) => write!(
                formatter,
                "`{name}` of the environment is reserved and ignored"
            ),
            Self::NotExportable(name) => write!(
                formatter,
                "`{}` of the environment cannot be exported by a shell and is ignored",
                name.escape_debug()
            ),
            Self::NoCondaMeta(prefix) => write!(
                formatter,
                "`{}` contains no directory `conda-meta`",
                shown(prefix)
            ),
        }
    }
}

/// Why a prefix is not activated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It lacks `conda-meta`.
    #[error(
        "activate `{}`: not a conda environment: it contains no directory `conda-meta`",
        shown(prefix)
    )]
    NotAnEnvironment {
        /// The prefix.
        prefix: PathBuf,
    },
    /// The environment sets a variable that states which environment is active.
    #[error(
        "activate `{}`: it sets `{name}`, which is reserved for the active environment",
        shown(prefix)
    )]
    Colliding {
        /// The prefix.
        prefix: PathBuf,
        /// As the environment writes it.
        name: String,
    },
    /// condarc's `env_prompt` cannot be filled in.
    #[error("activate `{}`: `env_prompt` is `{template}`", shown(prefix))]
    Prompt {
        /// The prefix.
        prefix: PathBuf,
        /// As in condarc.
        template: String,
    },
}

impl Refusal {
    /// What to do about it, for the `hint:` line.
    pub fn hint(&self) -> String {
        match self {
            Self::NotAnEnvironment { prefix } => {
                format!("specify the directory that `conda create -p {}` would create", shown(prefix))
            }
            Self::Colliding { prefix, name } => {
                format!("conda cannot activate it either; run `conda env config vars unset -p {} {name}`", shown(prefix))
            }
            Self::Prompt { .. } => {
                "the fields are `{default_env}`, `{stacked_env}`, `{prefix}` and `{name}`; `{{` is a brace".to_owned()
            }
        }
    }
}

/// Decides the environment of a command in the prefix. Without a root, nothing that names one is set.
///
/// # Errors
///
/// [`Refusal`]: what conda fails on, fails here; nothing is set by half.
pub fn activate(
    facts: &PrefixFacts,
    root: Option<&Root>,
    inherited: &Environment,
    options: &Options,
) -> Result<Activation, Refusal> {
    let prefix = &facts.prefix;
    let mut warnings = Vec::new();
    if !facts.has_conda_meta {
        if options.require_conda_meta {
            return Err(Refusal::NotAnEnvironment {
                prefix: prefix.clone(),
            });
        }
        warnings.push(Warning::NoCondaMeta(prefix.clone()));
    }
    let default_env = default_env(facts, root);
    let prompt_modifier = prompt_modifier(facts, options, &default_env)?;
    let own = own_variables(facts, options, &mut warnings)?;
    let start = Inherited::new(inherited, root);
    let exports_of_root = root.map(exports_of_root).unwrap_or_default();

    let mut path = vec![prefix.join("bin").into_os_string()];
    path.extend(start.path);
    let mut set = Environment::new();
    for (name, value) in [
        ("PATH", path.join(OsStr::new(":"))),
        ("CONDA_PREFIX", prefix.clone().into_os_string()),
        ("CONDA_SHLVL", "1".into()),
        ("CONDA_DEFAULT_ENV", default_env),
        ("CONDA_PROMPT_MODIFIER", prompt_modifier),
    ] {
        set.insert(name.into(), value);
    }
    if root.is_some() {
        // conda "unsets" these two: to the empty string, for the sake of shells that stop at unset variables.
        set.insert("_CE_M".into(), OsString::new());
        set.insert("_CE_CONDA".into(), OsString::new());
    }
    let spelt = |name: &str| {
        if options.upper_case {
            python::upper(name)
        } else {
            name.to_owned()
        }
    };
    let backups = own.iter().filter_map(|(name, value)| {
        let old = seen_by_conda(name, &start.environment, &exports_of_root)?;
        if value.as_ref().is_none_or(|value| old != OsStr::new(value)) {
            warnings.push(Warning::Overwritten(name.clone()));
        }
        Some((format!("__CONDA_SHLVL_0_{name}"), old))
    });
    let backups: Vec<(String, OsString)> = backups.collect();
    let nulls = own.iter().filter(|(_, value)| value.is_none());
    let values = own
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), OsString::from(value.as_ref()?))));
    let late_and_early = nulls
        .map(|(name, _)| (name.clone(), OsString::new()))
        .chain(values)
        .chain(backups);
    for (name, value) in late_and_early {
        let name = spelt(&name);
        if can_be_exported(&name) {
            set.insert(name.into(), value);
        } else if !warnings.contains(&Warning::NotExportable(name.clone())) {
            warnings.push(Warning::NotExportable(name));
        }
    }
    set.extend(exports_of_root);

    let unset = inherited
        .keys()
        .filter(|name| !start.environment.contains_key(*name) && !set.contains_key(*name));
    let unset = unset.cloned().collect();
    let late = LATE
        .into_iter()
        .map(OsString::from)
        .filter(|name| set.contains_key(name))
        .collect();
    let mut environment = start.environment;
    environment.extend(set.clone());
    let scripts = facts.scripts.clone();
    Ok(Activation {
        environment,
        set,
        unset,
        scripts,
        warnings,
        late,
        target: options.target.clone(),
    })
}

/// The variables that packages and state bring along, without those that are not set.
fn own_variables(
    facts: &PrefixFacts,
    options: &Options,
    warnings: &mut Vec<Warning>,
) -> Result<Variables, Refusal> {
    let mut own = facts.package_variables.clone();
    for (name, value) in &facts.state_variables {
        if facts
            .package_variables
            .iter()
            .any(|(known, _)| known == name)
        {
            warnings.push(Warning::Duplicate(name.clone()));
        }
        merge(&mut own, name.clone(), value.clone());
    }
    own.retain(|(_, value)| value.as_deref() != Some(UNSET));
    for (name, _) in &own {
        let spelt = if options.upper_case {
            python::upper(name)
        } else {
            name.clone()
        };
        if COLLIDING.contains(&spelt.as_str()) {
            return Err(Refusal::Colliding {
                prefix: facts.prefix.clone(),
                name: name.clone(),
            });
        }
        if spelt == RESERVED {
            warnings.push(Warning::Reserved(name.clone()));
        }
    }
    own.retain(|(name, _)| !warnings.contains(&Warning::Reserved(name.clone())));
    Ok(own)
}

/// What conda.sh exports before conda is asked, and activation once more after the environment's own variables.
fn exports_of_root(root: &Root) -> Environment {
    let conda = root.installation.join("bin/conda").into_os_string();
    let python = root.installation.join("bin/python").into_os_string();
    [
        ("CONDA_EXE", conda.clone()),
        ("_CONDA_EXE", conda),
        ("CONDA_PYTHON_EXE", python),
        ("_CONDA_ROOT", root.installation.clone().into_os_string()),
    ]
    .map(|(name, value)| (name.into(), value))
    .into()
}

/// The value that a variable has when conda decides about backups: inherited, or from conda.sh.
fn seen_by_conda(
    name: &str,
    inherited: &Environment,
    exports_of_root: &Environment,
) -> Option<OsString> {
    if matches!(name, "_CE_M" | "_CE_CONDA" | "PS1") {
        return Some(OsString::new());
    }
    exports_of_root
        .get(OsStr::new(name))
        .or_else(|| inherited.get(OsStr::new(name)))
        .cloned()
}

fn can_be_exported(name: &str) -> bool {
    let is_identifier = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty();
    is_identifier && !READ_ONLY.contains(&name)
}

/// `base`; the name if the directory above is called `envs`, wherever it is; otherwise the whole path.
fn default_env(facts: &PrefixFacts, root: Option<&Root>) -> OsString {
    let prefix = &facts.prefix;
    if root.is_some_and(|root| same(&root.base, prefix)) {
        return "base".into();
    }
    let (parent, name) = split(prefix.as_os_str());
    if split(&parent).1 == "envs" {
        name
    } else {
        prefix.clone().into_os_string()
    }
}

fn prompt_modifier(
    facts: &PrefixFacts,
    options: &Options,
    default_env: &OsStr,
) -> Result<OsString, Refusal> {
    let Some(template) = &options.prompt else {
        return Ok(OsString::new());
    };
    let prefix = facts.prefix.as_os_str();
    let name = split(prefix).1;
    let fields = prompt::Fields {
        default_env: default_env.as_bytes(),
        prefix: prefix.as_bytes(),
        name: name.as_bytes(),
    };
    let filled = prompt::fill_in(template, &fields);
    let filled = filled.filter(|filled| !filled.contains(&0));
    filled
        .map(OsString::from_vec)
        .ok_or_else(|| Refusal::Prompt {
            prefix: facts.prefix.clone(),
            template: template.clone(),
        })
}

/// Whether both texts name the same directory. Both are normalised, so only the leading slashes of `//x` and `/x`
/// differ, and conda distinguishes these.
fn same(left: &std::path::Path, right: &std::path::Path) -> bool {
    left.as_os_str() == right.as_os_str()
}

/// `posixpath.split` of a normalised path: directory and last component.
fn split(path: &OsStr) -> (OsString, OsString) {
    let bytes = path.as_bytes();
    let at = bytes
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |at| at + 1);
    let (head, name) = bytes.split_at(at);
    let kept = head
        .iter()
        .rposition(|&byte| byte != b'/')
        .map_or(head.len(), |last| last + 1);
    (
        OsStr::from_bytes(&head[..kept]).to_owned(),
        OsStr::from_bytes(name).to_owned(),
    )
}

#[cfg(test)]
mod tests;
