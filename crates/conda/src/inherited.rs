//! The environment from which activation starts: the variables of conda are removed, so that activation starts at level
//! 0, and the changes of a starting non-interactive bash are made. `activation` adds the new variables.
//!
//! conda itself would nest: number the levels, keep the old prefix in `CONDA_PREFIX_1`, and run the `deactivate.d`
//! scripts of whatever directory `CONDA_PREFIX` names. A service has no level below its own, and code must not be run
//! because a variable names it. `PATH` is treated as `conda deactivate` would treat it, so that programs of an
//! environment that happened to be active are not found after ours.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::python;
use crate::{Environment, Root};

/// The search path that Debian's bash assumes when it is given none.
const BASH_DEFAULT_PATH: &str = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin:.";

/// The search path that conda assumes when it is given none, which is the case when bash sees no reason to export it.
const CONDA_DEFAULT_PATH: &str = "/usr/bin";

/// What names an active environment, or the conda that made it.
const STATE: [&str; 11] = [
    "CONDA_SHLVL",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "CONDA_PROMPT_MODIFIER",
    "CONDA_EXE",
    "CONDA_PYTHON_EXE",
    "CONDA_PS1_BACKUP",
    // What any bash on the way would read before anything else; not conda's, but not a service's either.
    "BASH_ENV",
    "ENV",
    // A bash that is not interactive forgets both: neither a script nor the command has ever seen them.
    "PS1",
    "PS2",
];

/// Such names in families: by number, or internal to conda.
const STATE_FAMILIES: [&str; 4] = ["CONDA_PREFIX_", "CONDA_STACKED_", "_CE_", "_CONDA_"];

/// Values saved by the activation of each level; they go only when a level is active. Without one, conda leaves them
/// alone as well.
const BACKUPS: &str = "__CONDA_SHLVL_";

/// The inherited environment, cleaned.
pub(crate) struct Inherited {
    pub(crate) environment: Environment,
    /// The elements of `PATH`, normalised, before the directories of the new environment are prepended.
    pub(crate) path: Vec<OsString>,
}

impl Inherited {
    pub(crate) fn new(inherited: &Environment, root: Option<&Root>) -> Self {
        let is_active = level(inherited) > 0;
        let environment = inherited
            .iter()
            .filter(|(name, _)| !is_state(name, is_active))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Self {
            environment,
            path: search_path(inherited, root),
        }
    }
}

fn is_state(name: &OsStr, is_active: bool) -> bool {
    let name = name.as_bytes();
    STATE.iter().any(|known| name == known.as_bytes())
        || STATE_FAMILIES
            .iter()
            .any(|family| name.starts_with(family.as_bytes()))
        || (is_active && name.starts_with(BACKUPS.as_bytes()))
}

/// The number of active environments; 0 if the value is not a number.
fn level(inherited: &Environment) -> u32 {
    let value = inherited
        .get(OsStr::new("CONDA_SHLVL"))
        .and_then(|value| value.to_str());
    value
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

fn search_path(inherited: &Environment, root: Option<&Root>) -> Vec<OsString> {
    let is_hooked = inherited.contains_key(OsStr::new("CONDA_SHLVL"));
    let given = inherited.get(OsStr::new("PATH"));
    // The first part is conda.sh: if it has not been read yet, it prepends condabin to any `PATH`.
    let mut path = Vec::new();
    if !is_hooked {
        path.extend(root.map(|root| root.installation.join("condabin").into_os_string()));
    }
    match given {
        Some(value) if value.is_empty() && !path.is_empty() => {}
        Some(value) => path.extend(elements(value)),
        None => path.extend(elements(OsStr::new(if is_hooked {
            CONDA_DEFAULT_PATH
        } else {
            BASH_DEFAULT_PATH
        }))),
    }
    for directory in active_directories(inherited) {
        if let Some(at) = path.iter().position(|element| *element == directory) {
            path.remove(at);
        }
    }
    if let Some(root) = root
        && !path
            .iter()
            .any(|element| element.as_bytes().ends_with(b"condabin"))
    {
        path.insert(
            0,
            python::normalise(root.installation.join("condabin").as_os_str()),
        );
    }
    path
}

fn elements(value: &OsStr) -> impl Iterator<Item = OsString> {
    value
        .as_bytes()
        .split(|&byte| byte == b':')
        .map(|element| python::normalise(OsStr::from_bytes(element)))
}

/// The `bin` directories that deactivating all levels would remove from `PATH`, starting at the top: the active one,
/// and the one below each level that was stacked instead of replaced.
fn active_directories(inherited: &Environment) -> Vec<OsString> {
    let bin = |name: &str| {
        let prefix = inherited
            .get(OsStr::new(name))
            .filter(|prefix| !prefix.is_empty())?;
        Some(python::normalise(&OsString::from_vec(
            [prefix.as_bytes(), b"/bin"].concat(),
        )))
    };
    let top = level(inherited);
    if top == 0 {
        return Vec::new();
    }
    // Nobody nests this deep; a number from a variable must not cause a long loop.
    let stacked = (2..=top.min(64))
        .rev()
        .filter(|level| inherited.contains_key(OsStr::new(&format!("CONDA_STACKED_{level}"))));
    bin("CONDA_PREFIX")
        .into_iter()
        .chain(stacked.filter_map(|level| bin(&format!("CONDA_PREFIX_{}", level - 1))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_path(variables: &[(&str, &str)], expected: &str) {
        let inherited: Environment = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let root = Root::new("/r").expect("usable");
        let path = search_path(&inherited, Some(&root));
        let joined = path.join(OsStr::new(":"));
        assert_eq!(joined, expected, "{variables:?}");
    }

    #[test]
    fn condabin_goes_in_front_of_any_path() {
        check_path(&[("PATH", "/usr/bin:/bin")], "/r/condabin:/usr/bin:/bin");
        check_path(
            &[("PATH", ":/usr/bin::/bin:")],
            "/r/condabin:.:/usr/bin:.:/bin:.",
        );
        check_path(
            &[("PATH", "//x//y/:///z/./a/../b")],
            "/r/condabin://x/y:/z/b",
        );
        check_path(
            &[("PATH", "/r/condabin:/bin")],
            "/r/condabin:/r/condabin:/bin",
        );
        check_path(&[("PATH", "")], "/r/condabin");
        check_path(
            &[],
            "/r/condabin:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin:.",
        );
    }

    #[test]
    fn after_conda_sh_was_read_condabin_goes_in_only_where_none_is() {
        check_path(
            &[("CONDA_SHLVL", "0"), ("PATH", "/bin")],
            "/r/condabin:/bin",
        );
        check_path(
            &[("CONDA_SHLVL", "0"), ("PATH", "/other/condabin:/bin")],
            "/other/condabin:/bin",
        );
        check_path(
            &[("CONDA_SHLVL", "0"), ("PATH", "/bin:/not-condabin/")],
            "/bin:/not-condabin",
        );
        check_path(&[("CONDA_SHLVL", "0"), ("PATH", "")], "/r/condabin:.");
        check_path(&[("CONDA_SHLVL", "0")], "/r/condabin:/usr/bin");
        check_path(
            &[("CONDA_SHLVL", "abc"), ("PATH", "/bin")],
            "/r/condabin:/bin",
        );
    }

    #[test]
    fn the_directory_of_an_active_environment_goes() {
        let active = [("CONDA_SHLVL", "1"), ("CONDA_PREFIX", "/e/old")];
        let with = |path| [active[0], active[1], ("PATH", path)];
        check_path(&with("/e/old/bin:/r/condabin:/bin"), "/r/condabin:/bin");
        check_path(&with("/bin:/e//old/bin/:/r/condabin"), "/bin:/r/condabin");
        check_path(
            &with("/e/old/bin:/bin:/e/old/bin"),
            "/r/condabin:/bin:/e/old/bin",
        );
        check_path(&with("/bin"), "/r/condabin:/bin");
        check_path(
            &[
                ("CONDA_SHLVL", "0"),
                ("CONDA_PREFIX", "/e/old"),
                ("PATH", "/e/old/bin"),
            ],
            "/r/condabin:/e/old/bin",
        );
    }

    #[test]
    fn a_stacked_environment_goes_with_the_one_below_it() {
        let levels = |stacked: &'static str| {
            [
                ("CONDA_SHLVL", "2"),
                ("CONDA_PREFIX", "/e/new"),
                ("CONDA_PREFIX_1", "/e/old"),
                (stacked, "true"),
                ("PATH", "/e/new/bin:/e/old/bin:/r/condabin"),
            ]
        };
        check_path(&levels("CONDA_STACKED_2"), "/r/condabin");
        check_path(&levels("CONDA_STACKED_3"), "/e/old/bin:/r/condabin");
    }

    #[test]
    fn state_goes_and_settings_stay() {
        let kept = |variables: &[&str]| {
            let inherited: Environment = variables
                .iter()
                .map(|name| (name.into(), "1".into()))
                .collect();
            let names = Inherited::new(&inherited, None).environment.into_keys();
            names
                .map(|name| name.into_string().expect("all UTF-8"))
                .collect::<Vec<_>>()
        };
        let state = [
            "CONDA_PREFIX",
            "CONDA_PREFIX_1",
            "CONDA_DEFAULT_ENV",
            "CONDA_PROMPT_MODIFIER",
            "CONDA_STACKED_2",
            "CONDA_EXE",
            "CONDA_PYTHON_EXE",
            "_CE_M",
            "_CE_CONDA",
            "_CONDA_EXE",
            "_CONDA_ROOT",
            "BASH_ENV",
            "ENV",
            "PS1",
        ];
        assert_eq!(kept(&state), Vec::<String>::new());
        let settings = [
            "CONDARC",
            "CONDA_ENVS_DIRS",
            "CONDA_ROOT",
            "HOME",
            "PYTHONPATH",
        ];
        assert_eq!(kept(&settings), settings);
        assert_eq!(kept(&["__CONDA_SHLVL_0_V"]), ["__CONDA_SHLVL_0_V"]);
        assert_eq!(
            kept(&["CONDA_SHLVL", "__CONDA_SHLVL_0_V"]),
            Vec::<String>::new()
        );
    }
}
