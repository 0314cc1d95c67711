//! Targets to prefixes, on directories made for each test.

use std::fs;

use super::*;

struct Host {
    directory: tempfile::TempDir,
    surroundings: Surroundings,
}

impl Host {
    /// A root `r` that can be written, a home `h`, a working directory `w`, and these directories besides.
    fn new(directories: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        for name in ["r/conda-meta", "h", "w"].iter().chain(directories) {
            fs::create_dir_all(path(name)).expect("a directory");
        }
        fs::write(path("r/conda-meta/history"), "").expect("a file");
        let surroundings = Surroundings {
            environment: [("HOME".into(), path("h").into())].into(),
            directory: path("w"),
            home: None,
            passwd: Vec::new(),
            system: path("system"),
            shown: None,
        };
        Self {
            directory,
            surroundings,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn resolve(&self, target: &str) -> Result<Resolved, ResolveError> {
        resolve(target.as_ref(), &self.path("r"), &self.surroundings)
    }

    #[track_caller]
    fn check(&self, target: &str, expected: &str) {
        let resolved = self.resolve(target).expect(target);
        let found = resolved
            .prefix
            .strip_prefix(self.directory.path())
            .expect("below the host")
            .to_owned();
        assert_eq!(found, Path::new(expected), "{target}");
    }
}

#[test]
fn the_base_environment_has_several_names() {
    let host = Host::new(&["r/envs/base", "r/envs/root"]);
    for target in ["", "base", "root"] {
        host.check(target, "r");
    }
}

#[test]
fn a_name_is_a_directory_in_the_first_place_that_has_it() {
    let host = Host::new(&["r/envs/both", "h/.conda/envs/both", "h/.conda/envs/own"]);
    host.check("both", "r/envs/both");
    host.check("own", "h/.conda/envs/own");
    assert!(
        !host
            .resolve("own")
            .expect("found")
            .options
            .require_conda_meta
    );
}

#[test]
fn a_root_that_cannot_be_written_comes_last() {
    let host = Host::new(&["r/envs/both", "h/.conda/envs/both"]);
    // The test may run as root, whom no permission stops; without a history conda does not even try.
    fs::remove_file(host.path("r/conda-meta/history")).expect("it is there");
    host.check("both", "h/.conda/envs/both");
}

#[test]
fn a_name_that_is_nowhere_is_refused_with_the_places() {
    let host = Host::new(&[]);
    fs::write(host.path("r/file"), "").expect("a file");
    let error = host.resolve("nope").expect_err("it is nowhere");
    assert_eq!(error.to_string(), "environment `nope` not found");
    let (root, own) = (host.path("r/envs/nope"), host.path("h/.conda/envs/nope"));
    assert_eq!(
        error.hint(),
        format!(
            "directories searched: `{}`, `{}`",
            root.display(),
            own.display()
        )
    );
}

#[test]
fn a_path_is_expanded_and_needs_conda_meta() {
    let mut host = Host::new(&["w/e/conda-meta", "h/e/conda-meta", "w/bare"]);
    host.surroundings
        .environment
        .insert("PLACE".into(), host.path("w").into());
    host.check("./e", "w/e");
    host.check("e/", "w/e");
    host.check("../w/./e", "w/e");
    host.check("~/e", "h/e");
    host.check("$PLACE/e", "w/e");
    host.check("${PLACE}/e", "w/e");
    assert!(
        host.resolve("./e")
            .expect("found")
            .options
            .require_conda_meta
    );
    for target in ["./bare", "./nope", "./e\\x", "$NOPE/e"] {
        assert!(
            matches!(
                host.resolve(target),
                Err(ResolveError::NotAnEnvironment { .. })
            ),
            "{target}"
        );
    }
}

#[test]
fn a_root_is_made_absolute_and_a_strange_one_refused() {
    let host = Host::new(&[]);
    let resolved = resolve("".as_ref(), Path::new("../r/."), &host.surroundings).expect("found");
    assert_eq!(resolved.root.installation(), host.path("r"));
    let error = resolve("".as_ref(), Path::new("/a:b"), &host.surroundings).expect_err("no root");
    assert!(matches!(error, ResolveError::Unusable(_)), "{error}");
}

#[test]
fn the_target_is_kept_as_it_was_typed() {
    let host = Host::new(&["h/e/conda-meta"]);
    assert_eq!(
        host.resolve("~/e").expect("found").options.target,
        Some("~/e".into())
    );
    assert_eq!(host.resolve("").expect("found").options.target, None);
}

#[test]
fn condarc_says_where_the_base_is_and_what_no_argument_means() {
    let host = Host::new(&["b/envs/e", "r/envs/e"]);
    fs::write(
        host.path("h/.condarc"),
        format!(
            "root_prefix: {}\ndefault_activation_env: e\n",
            host.path("b").display()
        ),
    )
    .expect("a file");
    host.check("", "b/envs/e");
    host.check("base", "b");
    let resolved = host.resolve("").expect("found");
    assert_eq!(
        (resolved.root.installation(), resolved.root.base()),
        (&*host.path("r"), &*host.path("b"))
    );
}
