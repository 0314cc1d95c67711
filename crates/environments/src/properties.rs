//! Properties that hold for every record of a package, tested with random records. `cargo xtask fuzz` tries many more.

use buildbot_conda_core::foreign_text::is_plain;
use proptest::prelude::*;

use crate::{Package, difference, generation_id, lock_text};

/// A genuine or forged record of a package.
fn package() -> impl Strategy<Value = Package> {
    let text = || prop_oneof!["[a-z0-9.]{1,5}", any::<String>()];
    let url = prop_oneof![
        6 => "https://x/noarch/[a-z]{1,3}-1-0\\.(conda|tar\\.bz2)",
        2 => "https?://[ -~]{0,9}\\.conda(#[ -~]{0,9})?",
        1 => "[a-z]{0,3}(://)?.{0,9}[\n\r\t ]?.{0,9}\\.conda",
    ];
    let sum = |real: &'static str| prop_oneof![8 => real, 1 => "[0-9a-fA-F\n#@ ]{31,65}", 1 => any::<String>()];
    let sums = (
        prop::option::weighted(0.8, sum("[0-9a-f]{64}")),
        prop::option::weighted(0.8, sum("[0-9a-f]{32}")),
    );
    (text(), text(), text(), text(), url, sums).prop_map(
        |(name, version, build, subdir, url, (sha256, md5))| Package {
            name: name.into(),
            version: version.into(),
            build: build.into(),
            subdir: subdir.into(),
            url: url.into(),
            sha256: sha256.map(Into::into),
            md5: md5.map(Into::into),
        },
    )
}

fn packages() -> impl Strategy<Value = Vec<Package>> {
    prop::collection::vec(package(), 0..5)
}

proptest! {
    #[test]
    fn a_lock_has_a_line_for_each_package_and_nothing_else(packages in packages()) {
        let Ok(text) = lock_text(&packages) else { return Ok(()) };
        let lines: Vec<&str> = text.lines().collect();
        prop_assert_eq!(&lines[..2], ["# platform: linux-64", "@EXPLICIT"]);
        prop_assert_eq!(lines.len(), packages.len() + 2);
        for line in &lines[2..] {
            prop_assert!(is_plain(line) && line.is_ascii() && !line.contains(' '), "{}", line);
            let (url, sum) = line.split_once('#').unwrap();
            let is_meant = |package: &Package| {
                let sums = [&package.sha256, &package.md5];
                package.url.split('#').next() == Some(url)
                    && sums.into_iter().flatten().any(|known| sum.trim_start_matches("sha256:") == known.as_str())
            };
            prop_assert!(url.contains("://") && packages.iter().any(is_meant), "{}", line);
        }
        let mut turned = packages;
        turned.reverse();
        let mut again: Vec<String> = lock_text(&turned).unwrap().lines().map(str::to_owned).collect();
        let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
        again.sort();
        lines.sort();
        prop_assert_eq!(again, lines);
    }

    #[test]
    fn what_a_lock_refuses_it_also_refuses_among_others(packages in packages()) {
        let each = packages.iter().all(|one| lock_text(std::slice::from_ref(one)).is_ok());
        prop_assert_eq!(lock_text(&packages).is_ok(), each);
    }

    #[test]
    fn a_generation_is_called_after_what_is_in_it(
        packages in packages(),
        more in package(),
        variables in prop::collection::btree_map(any::<String>(), any::<String>(), 0..3),
    ) {
        let id = generation_id(&packages, &variables, "1");
        let mut turned = packages.clone();
        turned.reverse();
        prop_assert_eq!(&id, &generation_id(&turned, &variables, "1"));
        turned.push(more);
        prop_assert_ne!(&id, &generation_id(&turned, &variables, "1"));
        let mut others = variables;
        others.insert("\n".to_owned(), "\"=\n".to_owned());
        prop_assert_ne!(&id, &generation_id(&packages, &others, "1"));
    }

    #[test]
    fn differences_are_shown_and_none_is_found_where_there_is_none(before in packages(), after in packages()) {
        prop_assert!(difference(&before, &before).is_empty());
        let names = |packages: &[Package]| packages.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        for found in difference(&before, &after) {
            prop_assert_eq!(found.before.is_some(), names(&before).contains(&found.name));
            prop_assert_eq!(found.after.is_some(), names(&after).contains(&found.name));
            prop_assert!(is_plain(&found.name));
        }
    }

    #[test]
    fn a_record_is_read_again_as_it_was_handed_on(package in package()) {
        let text = serde_json::to_string(&package).unwrap();
        prop_assert!(is_plain(&text), "{}", text);
        let again: Package = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(again, package);
    }
}
