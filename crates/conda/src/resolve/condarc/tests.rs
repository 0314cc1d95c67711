//! Files and variables of settings, on directories made for each test.

use super::*;

struct Host {
    directory: tempfile::TempDir,
    surroundings: Surroundings,
}

impl Host {
    /// A home `h`, a root `r`, and these files.
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        for (name, text) in files {
            fs::create_dir_all(path(name).parent().expect("below the host")).expect("a directory");
            fs::write(path(name), text).expect("a file");
        }
        let surroundings = Surroundings {
            environment: [("HOME".into(), path("h").into())].into(),
            directory: path("w"),
            home: None,
            passwd: Vec::new(),
            system: path("s"),
            shown: None,
        };
        Self {
            directory,
            surroundings,
        }
    }

    fn with(mut self, variables: &[(&str, &str)]) -> Self {
        self.surroundings.environment.extend(
            variables
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
        );
        self
    }

    fn read(&self) -> Result<Settings, CondarcError> {
        let root = self.directory.path().join("r");
        Settings::read(&root, &self.surroundings, Wanted::Everything)
    }

    /// What an environment that is known by its prefix is activated by.
    fn options(&self) -> Result<Options, CondarcError> {
        let root = self.directory.path().join("r");
        let settings = Settings::read(&root, &self.surroundings, Wanted::Activation)?;
        let mut options = Options::default();
        settings.apply(&mut options);
        Ok(options)
    }

    fn envs_dirs(&self) -> Vec<OsString> {
        self.read().expect("nothing is wrong").envs_dirs
    }
}

#[test]
fn files_count_in_the_order_of_the_search_path() {
    // Each is more important than those before it.
    let files = [
        "s/etc/conda/.condarc",
        "s/etc/conda/condarc",
        "s/etc/conda/condarc.d/1.yml",
        "s/etc/conda/condarc.d/2.yaml",
        "s/var/lib/conda/condarc",
        "r/.condarc",
        "r/condarc.d/1.yml",
        "x/conda/condarc",
        "h/.config/conda/.condarc",
        "h/.conda/condarc",
        "h/.condarc",
        "w/own.yml",
    ];
    let texts: Vec<(&str, String)> = files
        .iter()
        .enumerate()
        .map(|(number, name)| (*name, format!("envs_dirs: [/{number}, /all]\n")))
        .collect();
    let texts: Vec<(&str, &str)> = texts
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    let host = Host::new(&texts);
    let x = host.directory.path().join("x");
    let host = host.with(&[
        ("XDG_CONFIG_HOME", x.to_str().expect("UTF-8")),
        ("CONDARC", "own.yml"),
    ]);
    let mut expected: Vec<OsString> = (0..files.len())
        .rev()
        .map(|number| format!("/{number}").into())
        .collect();
    expected.insert(1, "/all".into());
    assert_eq!(host.envs_dirs(), expected);
}

#[test]
fn files_of_other_names_do_not_count() {
    let host = Host::new(&[
        ("h/.conda/condarc.d/x.txt", "envs_dirs: [/x]\n"),
        ("h/.conda/condarc.d/.condarc", "envs_dirs: [/x]\n"),
        ("h/own.conf", "envs_dirs: [/x]\n"),
    ]);
    assert!(
        host.with(&[("CONDARC", "~/own.conf")])
            .envs_dirs()
            .is_empty()
    );
}

#[test]
fn variables_win_and_are_expanded_like_files() {
    let host = Host::new(&[("h/.condarc", "envs_path:\n  - $PLACE/e\n  - ~/mine\n")]);
    let host = host.with(&[("PLACE", "/p"), ("CONDA_ENVS_DIRS", " /v : : ${PLACE}/w")]);
    assert_eq!(host.envs_dirs(), ["/v", "/p/w", "/p/e", "~/mine"]);
}

#[test]
fn booleans_are_what_conda_takes_for_them() {
    for (text, expected) in [
        ("true", true),
        ("yes", true),
        ("On", true),
        ("y", true),
        ("1", true),
        ("0.5", true),
        ("'true'", true),
        ("false", false),
        ("no", false),
        ("off", false),
        ("0", false),
        ("0.0", false),
        ("none", false),
        ("", false),
        ("~", false),
        ("''", false),
    ] {
        let host = Host::new(&[("h/.condarc", &format!("changeps1: {text}\n"))]);
        assert_eq!(host.read().expect(text).changeps1, Some(expected), "{text}");
    }
    let error = Host::new(&[("h/.condarc", "changeps1: perhaps\n")])
        .read()
        .expect_err("no boolean");
    assert!(
        error
            .to_string()
            .ends_with("`changeps1`: `perhaps` is neither true nor false"),
        "{error}"
    );
}

#[test]
fn settings_reach_the_options_of_activation() {
    let apply = |text: &str| {
        let mut options = Options::default();
        Host::new(&[("h/.condarc", text)])
            .read()
            .expect(text)
            .apply(&mut options);
        options
    };
    assert_eq!(apply("# nothing\n"), Options::default());
    assert_eq!(apply("other: {nested: [1, 2]}\n"), Options::default());
    assert_eq!(
        apply("env_prompt: '<{name}> '\n").prompt.as_deref(),
        Some("<{name}> ")
    );
    assert_eq!(apply("env_prompt: 5\n").prompt.as_deref(), Some("5"));
    assert_eq!(apply("env_prompt: x\nchangeps1: no\n").prompt, None);
    assert!(!apply("envvars_force_uppercase: false\n").upper_case);
}

#[test]
fn of_a_known_prefix_only_what_says_something_of_activation_counts() {
    for text in [
        "# changes nothing\n",
        "channels: [\n",
        "envs_dirs: /x\ndefault_activation_env: [x]\n",
        "envs_dirs: [/a] #!final\nenvs_path: [/b]\n",
    ] {
        let options = Host::new(&[("h/.condarc", text)]).options();
        assert_eq!(options.expect(text), Options::default(), "{text}");
    }
    for text in [
        "envvars_force_uppercase: false\n",
        "\"envvars_force\\u005fuppercase\": no\n",
        "{other: 1, envvars_force_uppercase: off}\n",
        "envs_dirs: [/a] #!final\nenvvars_force_uppercase: 0\n",
    ] {
        let options = Host::new(&[("r/.condarc", text)]).options();
        assert!(!options.expect(text).upper_case, "{text}");
    }
    for text in [
        "changeps1: perhaps\n",
        "env_prompt: 'x\n",
        "changeps1: no #!top\n",
    ] {
        assert!(
            Host::new(&[("h/.condarc", text)]).options().is_err(),
            "{text}"
        );
    }
    let host = Host::new(&[]).with(&[("CONDA_ENVS_DIRS", "/a"), ("CONDA_ENVS_PATH", "/b")]);
    assert_eq!(
        host.options().expect("no name is asked for"),
        Options::default()
    );
    let host = host.with(&[("CONDA_ENVVARS_FORCE_UPPERCASE", "false")]);
    assert!(!host.options().expect("it is a word").upper_case);
}

#[test]
fn a_service_to_which_homes_are_empty_sees_what_is_shown_of_them() {
    let shown = [
        PathBuf::from("/home/bb/master"),
        PathBuf::from("/opt/conda"),
    ];
    for (path, is_there) in [
        ("/home/bb/.condarc", false),
        ("/root/.condarc", false),
        ("/run/user/1000/condarc", false),
        ("/home/bb/master/.condarc", true),
        ("/home/bb/masters/.condarc", false),
        ("/opt/conda/.condarc", true),
        ("/srv/bb/.condarc", true),
        ("/etc/conda/condarc", true),
    ] {
        assert_eq!(is_seen(Path::new(path), &shown), is_there, "{path}");
    }
}

#[test]
fn a_priority_mark_matters_only_at_our_keys() {
    let marked = |text| marked_key(text, Wanted::Everything);
    assert_eq!(marked("channels:\n  - a #!top\nchangeps1: no\n"), None);
    assert_eq!(
        marked("envs_dirs:\n  - /a\n- /b   #!bottom\n"),
        Some("envs_dirs")
    );
    assert_eq!(marked("env_prompt: x #!final\n"), Some("env_prompt"));
}

#[test]
fn what_cannot_be_used_is_refused_with_its_file() {
    for (text, message) in [
        ("a: [\n", ""),
        ("- a\n", "its top level is not a mapping"),
        ("word\n", "its top level is not a mapping"),
        ("envs_dirs: /x\n", "`envs_dirs`: it is not a list"),
        (
            "envs_dirs: [[/x]]\n",
            "`envs_dirs`: it is not a single value",
        ),
        (
            "env_prompt: [x]\n",
            "`env_prompt`: it is not a single value",
        ),
        (
            "envs_dirs: [/a]\nenvs_path: [/b]\n",
            "`envs_dirs`: both `envs_dirs` and `envs_path` exist",
        ),
        (
            "root_dir: /a\nroot_prefix: /b\n",
            "`root_prefix`: both `root_prefix` and `root_dir` exist",
        ),
        (
            "changeps1: no #!final\n",
            "the mark at `changeps1`, `#!`, is not supported here",
        ),
    ] {
        let host = Host::new(&[("h/.condarc", text)]);
        let error = host.read().expect_err(text);
        let place = format!(
            "read `{}`: ",
            host.directory.path().join("h/.condarc").display()
        );
        assert!(
            error.to_string().starts_with(&place) && error.to_string().ends_with(message),
            "{error}"
        );
        assert!(!error.hint().is_empty());
    }
    let host = Host::new(&[]).with(&[("CONDA_ENVS_DIRS", "/a"), ("CONDA_ENVS_PATH", "/b")]);
    assert!(matches!(
        host.read(),
        Err(CondarcError::Value {
            key: "envs_dirs",
            ..
        })
    ));
}
