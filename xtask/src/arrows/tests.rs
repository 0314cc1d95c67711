//! The rules, tested on small command lines.

use std::fs;

use super::*;

/// A tree of these files.
struct House(tempfile::TempDir, Vec<PathBuf>);

impl House {
    fn new(files: &[(&str, &str)]) -> Self {
        let mut house = Self(tempfile::tempdir().unwrap(), Vec::new());
        for (path, text) in files {
            house.set(path, text);
        }
        house
    }

    /// The command line of three parts, of which `plan` and `create` use what is below them.
    fn sound() -> Self {
        Self::new(&[
            (
                "docs/architecture.md",
                "# A\n\n| part | uses |\n|---|---|\n| `system` | |\n| `plan` | `system` |\n\
                 | `create` | `plan`, `system` |\n\nMore.\n",
            ),
            (
                "crates/cli/src/main.rs",
                "mod create;\nmod plan;\nmod system;\nfn main() { create::run(); }\n",
            ),
            ("crates/cli/src/system.rs", "pub(crate) fn stop() {}\n"),
            (
                "crates/cli/src/plan/mod.rs",
                "mod perform;\npub(crate) use perform::carry_out;\n",
            ),
            (
                "crates/cli/src/plan/perform.rs",
                "pub(crate) fn carry_out() { crate::system::stop(); }\n",
            ),
            (
                "crates/cli/src/create.rs",
                "use crate::plan;\nuse crate::system;\n\
                 pub(crate) fn run() { plan::carry_out(); println!(\"{:?}\", system::stop()); }\n\
                 #[cfg(test)]\nmod tests { use crate::main; }\n",
            ),
        ])
    }

    fn set(&mut self, path: &str, text: &str) {
        let full = self.0.path().join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, text).unwrap();
        if !self.1.contains(&PathBuf::from(path)) {
            self.1.push(path.into());
        }
    }

    fn tree(&self) -> Tree {
        Tree::with(self.0.path(), self.1.clone())
    }

    #[track_caller]
    fn refuses(&self, rule: fn(&Tree) -> Result<()>, expect: &str) {
        let error = rule(&self.tree()).unwrap_err();
        assert_eq!(format!("{error:#}"), expect);
    }
}

#[test]
fn a_sound_house_is_let_be() {
    let house = House::sound();
    no_files_use_each_other_in_a_circle(&house.tree()).unwrap();
    parts_use_what_the_map_says(&house.tree()).unwrap();
}

#[test]
fn names_that_are_passed_on_lead_to_where_they_are_defined() {
    let house = House::sound();
    let found: Vec<String> = arrows(&house.tree())
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        [
            "`crates/cli/src/create.rs` uses `plan::carry_out` of `crates/cli/src/plan/perform.rs`",
            "`crates/cli/src/create.rs` uses `system::stop` of `crates/cli/src/system.rs`",
            "`crates/cli/src/main.rs` uses `create::run` of `crates/cli/src/create.rs`",
            "`crates/cli/src/plan/perform.rs` uses `crate::system::stop` of `crates/cli/src/system.rs`",
        ]
    );
}

#[test]
fn a_circle_of_files_is_refused_whatever_form_its_arrows_have() {
    for text in [
        "pub(crate) fn stop() { crate::plan::carry_out(); }\n",
        "use crate::plan::carry_out as go;\npub(crate) fn stop() { go(); }\n",
        "use super::plan::*;\nuse super::plan;\npub(crate) fn stop() { assert!(plan::carry_out() == ()); }\n",
    ] {
        let mut house = House::sound();
        house.set("crates/cli/src/system.rs", text);
        let error = no_files_use_each_other_in_a_circle(&house.tree()).unwrap_err();
        let error = format!("{error:#}");
        let expect = "`crates/cli/src/plan/perform.rs` uses `crate::system::stop` of `crates/cli/src/system.rs`";
        assert!(error.contains(expect), "{error}");
        assert!(!error.contains("create"), "{error}");
    }
}

#[test]
fn a_circle_in_another_crate_is_refused_too() {
    let mut house = House::sound();
    house.set("crates/x/src/lib.rs", "mod a;\npub mod b;\n");
    house.set("crates/x/src/a.rs", "pub(crate) struct A(crate::b::B);\n");
    house.set(
        "crates/x/src/b/mod.rs",
        "mod inner { pub(crate) fn f(_: &super::super::a::A) {} }\npub struct B;\n",
    );
    house.refuses(
        no_files_use_each_other_in_a_circle,
        "move what both need to a separate file:\ncircle:\n  \
         `crates/x/src/a.rs` uses `crate::b::B` of `crates/x/src/b/mod.rs`\n  \
         `crates/x/src/b/mod.rs` uses `super::super::a::A` of `crates/x/src/a.rs`",
    );
}

#[test]
fn an_arrow_that_the_map_does_not_have_is_refused() {
    let mut house = House::sound();
    house.set(
        "crates/cli/src/plan/perform.rs",
        "use crate::create::run;\npub(crate) fn carry_out() { crate::system::stop(); run(); }\n",
    );
    house.refuses(
        parts_use_what_the_map_says,
        "`crates/cli/src/plan/perform.rs` uses `crate::create::run` of `crates/cli/src/create.rs`: \
         `docs/architecture.md` does not allow `plan` to use `create`",
    );
}

#[test]
fn a_map_that_says_more_than_there_is_is_refused() {
    let mut house = House::sound();
    house.set(
        "crates/cli/src/plan/perform.rs",
        "pub(crate) fn carry_out() {}\n",
    );
    house.refuses(
        parts_use_what_the_map_says,
        "`docs/architecture.md` allows `plan` to use `system`, which it does not use",
    );
}
