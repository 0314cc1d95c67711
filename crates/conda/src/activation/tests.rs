//! Decisions over facts made up here; nothing is on disk. What conda itself makes of such facts is recorded in the
//! command's tests; here are the parts that the launcher relies on, and what conda refuses.

use super::*;

fn facts(prefix: &str) -> PrefixFacts {
    PrefixFacts {
        prefix: prefix.into(),
        has_conda_meta: true,
        package_variables: Vec::new(),
        state_variables: Vec::new(),
        scripts: Vec::new(),
    }
}

fn with_state(variables: &[(&str, Option<&str>)]) -> PrefixFacts {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)));
    PrefixFacts {
        state_variables: variables.collect(),
        ..facts("/r/envs/e")
    }
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn decide(facts: &PrefixFacts, inherited: &[(&str, &str)]) -> Activation {
    let root = Root::new("/r").expect("usable");
    activate(
        facts,
        Some(&root),
        &environment(inherited),
        &Options::default(),
    )
    .expect("nothing is wrong")
}

#[test]
fn an_activation_sets_these_variables_and_no_others() {
    let activation = decide(
        &facts("/r/envs/e"),
        &[("PATH", "/bin"), ("LANG", "C.UTF-8")],
    );
    let expected = environment(&[
        ("CONDA_DEFAULT_ENV", "e"),
        ("CONDA_EXE", "/r/bin/conda"),
        ("CONDA_PREFIX", "/r/envs/e"),
        ("CONDA_PROMPT_MODIFIER", "(e) "),
        ("CONDA_PYTHON_EXE", "/r/bin/python"),
        ("CONDA_SHLVL", "1"),
        ("PATH", "/r/envs/e/bin:/r/condabin:/bin"),
        ("_CE_CONDA", ""),
        ("_CE_M", ""),
        ("_CONDA_EXE", "/r/bin/conda"),
        ("_CONDA_ROOT", "/r"),
    ]);
    assert_eq!(activation.set, expected);
    assert!(activation.unset.is_empty() && activation.warnings.is_empty());
    assert_eq!(activation.environment.len(), expected.len() + 1);
    assert_eq!(activation.environment[OsStr::new("LANG")], "C.UTF-8");
}

#[test]
fn without_a_root_nothing_names_one() {
    let inherited = environment(&[("PATH", "/bin"), ("CONDA_EXE", "/old"), ("_CE_M", "")]);
    let activation =
        activate(&facts("/e"), None, &inherited, &Options::default()).expect("nothing is wrong");
    let names: Vec<_> = activation.environment.keys().collect();
    assert_eq!(
        names,
        [
            "CONDA_DEFAULT_ENV",
            "CONDA_PREFIX",
            "CONDA_PROMPT_MODIFIER",
            "CONDA_SHLVL",
            "PATH"
        ]
    );
    assert_eq!(activation.environment[OsStr::new("PATH")], "/e/bin:/bin");
    assert_eq!(
        activation.unset.iter().collect::<Vec<_>>(),
        ["CONDA_EXE", "_CE_M"]
    );
}

#[test]
fn the_environment_is_named_after_its_place() {
    for (prefix, expected) in [
        ("/r", "base"),
        ("/r/envs/e", "e"),
        ("/else/envs/w", "w"),
        ("/envs/w", "w"),
        ("/envs", "/envs"),
        ("/else/Envs/w", "/else/Envs/w"),
        ("/else/w", "/else/w"),
        ("//r", "//r"),
        ("/", "/"),
    ] {
        let activation = decide(&facts(prefix), &[]);
        assert_eq!(
            activation.set[OsStr::new("CONDA_DEFAULT_ENV")],
            expected,
            "{prefix}"
        );
    }
}

#[test]
fn bytes_that_are_no_text_survive() {
    let stray = OsStr::from_bytes(b"/\xff").to_owned();
    let facts = PrefixFacts {
        prefix: stray.clone().into(),
        ..facts("/")
    };
    let mut inherited = environment(&[]);
    inherited.insert("PATH".into(), stray.clone());
    inherited.insert(OsStr::from_bytes(b"\xfe").to_owned(), stray.clone());
    let root = Root::new("/r").expect("usable");
    let activation =
        activate(&facts, Some(&root), &inherited, &Options::default()).expect("nothing is wrong");
    assert_eq!(
        activation.environment[OsStr::new("PATH")],
        OsStr::from_bytes(b"/\xff/bin:/r/condabin:/\xff")
    );
    assert_eq!(activation.environment[OsStr::new("CONDA_PREFIX")], stray);
    assert_eq!(
        activation.environment[OsStr::new("CONDA_PROMPT_MODIFIER")],
        OsStr::from_bytes(b"(/\xff) ")
    );
    assert_eq!(activation.environment[OsStr::from_bytes(b"\xfe")], stray);
}

#[test]
fn what_says_which_environment_is_active_cannot_be_set() {
    for name in [
        "CONDA_PREFIX",
        "CONDA_SHLVL",
        "CONDA_DEFAULT_ENV",
        "CONDA_PROMPT_MODIFIER",
        "conda_prefix",
    ] {
        let facts = with_state(&[(name, Some("x"))]);
        let refusal =
            activate(&facts, None, &Environment::new(), &Options::default()).expect_err(name);
        assert!(
            matches!(&refusal, Refusal::Colliding { name: named, .. } if named == name),
            "{refusal}"
        );
        let cancelled = with_state(&[(name, Some(UNSET))]);
        assert!(
            activate(&cancelled, None, &Environment::new(), &Options::default()).is_ok(),
            "{name}"
        );
    }
    let spelt_as_it_is = Options {
        upper_case: false,
        ..Options::default()
    };
    let facts = with_state(&[("conda_prefix", Some("x"))]);
    assert!(activate(&facts, None, &Environment::new(), &spelt_as_it_is).is_ok());
}

#[test]
fn a_prefix_without_conda_meta_is_refused_or_told() {
    let facts = PrefixFacts {
        has_conda_meta: false,
        ..facts("/e")
    };
    let refusal = activate(&facts, None, &Environment::new(), &Options::default())
        .expect_err("it is required");
    assert_eq!(
        refusal.to_string(),
        "activate `/e`: not a conda environment: it contains no directory `conda-meta`"
    );
    let lenient = Options {
        require_conda_meta: false,
        ..Options::default()
    };
    let activation =
        activate(&facts, None, &Environment::new(), &lenient).expect("it is not required");
    assert_eq!(activation.warnings, [Warning::NoCondaMeta("/e".into())]);
}

#[test]
fn every_surprise_is_told() {
    let mut facts = with_state(&[
        ("PATH", Some("/evil")),
        ("DIFFERENT", Some("new")),
        ("SAME", Some("s")),
        ("BOTH", Some("state")),
        ("a-b", Some("x")),
        ("UID", Some("0")),
    ]);
    facts.package_variables = vec![("BOTH".to_owned(), Some("package".to_owned()))];
    let activation = decide(
        &facts,
        &[("DIFFERENT", "old"), ("SAME", "s"), ("PATH", "/bin")],
    );
    let named = |warning: fn(String) -> Warning, name: &str| warning(name.to_owned());
    assert_eq!(
        activation.warnings,
        [
            named(Warning::Duplicate, "BOTH"),
            named(Warning::Reserved, "PATH"),
            named(Warning::Overwritten, "DIFFERENT"),
            named(Warning::NotExportable, "A-B"),
            named(Warning::NotExportable, "UID"),
        ]
    );
    assert_eq!(
        activation.set[OsStr::new("PATH")],
        "/r/envs/e/bin:/r/condabin:/bin"
    );
    assert_eq!(activation.set[OsStr::new("BOTH")], "state");
    assert!(
        !activation.set.contains_key(OsStr::new("A-B"))
            && !activation.set.contains_key(OsStr::new("UID"))
    );
}

#[test]
fn backups_are_kept_of_what_was_there_whatever_its_value() {
    let facts = with_state(&[
        ("A", Some("1")),
        ("B", Some("")),
        ("low", None),
        ("NEW", Some("n")),
    ]);
    let activation = decide(&facts, &[("A", ""), ("B", ""), ("low", "l"), ("LOW", "L")]);
    for (name, value) in [
        ("A", "1"),
        ("B", ""),
        ("low", "l"),
        ("LOW", ""),
        ("__CONDA_SHLVL_0_A", ""),
        ("__CONDA_SHLVL_0_B", ""),
        ("__CONDA_SHLVL_0_LOW", "l"),
    ] {
        assert_eq!(activation.environment[OsStr::new(name)], value, "{name}");
    }
    assert!(
        !activation
            .environment
            .contains_key(OsStr::new("__CONDA_SHLVL_0_NEW"))
    );
}

#[test]
fn of_names_that_differ_in_case_the_later_wins_and_values_win_over_nulls() {
    let activation = decide(&with_state(&[("foo", Some("1")), ("FOO", Some("2"))]), &[]);
    assert_eq!(activation.set[OsStr::new("FOO")], "2");
    let activation = decide(&with_state(&[("FOO", Some("2")), ("foo", Some("1"))]), &[]);
    assert_eq!(activation.set[OsStr::new("FOO")], "1");
    let activation = decide(&with_state(&[("FOO", Some("2")), ("foo", None)]), &[]);
    assert_eq!(activation.set[OsStr::new("FOO")], "2");
}

#[test]
fn the_prompt_follows_its_template() {
    let prompt = |template: Option<&str>| {
        let options = Options {
            prompt: template.map(str::to_owned),
            ..Options::default()
        };
        let activation = activate(&facts("/r/envs/e"), None, &Environment::new(), &options)?;
        Ok::<_, Refusal>(activation.set[OsStr::new("CONDA_PROMPT_MODIFIER")].clone())
    };
    assert_eq!(prompt(None).expect("no prompt"), "");
    assert_eq!(prompt(Some("<{name}>")).expect("a field"), "<e>");
    assert!(matches!(
        prompt(Some("{nope}")),
        Err(Refusal::Prompt { .. })
    ));
}
