//! Properties that hold for every unit file, tested with random texts. `cargo xtask fuzz` tries many more.

use std::fs;

use buildbot_conda_core::paths;
use proptest::prelude::*;

use crate::unit_files::{Runs, UnitFiles};

/// Lines that change nothing of what a unit starts, however they look.
fn harmless_lines() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just(String::new()),
        "[ \t]{0,2}[#;][ -~]{0,10}",
        Just(format!("# ExecStart={} master", paths::LAUNCHER)),
        Just(format!("; {} \\", paths::LAUNCHER)),
        Just(format!("Description={}", paths::LAUNCHER)),
        "[A-D][a-z]{0,6}=[a-z ]{0,6}",
        "[a-z ]{1,8}",
    ];
    prop::collection::vec(line, 0..6).prop_map(|lines| lines.join("\n"))
}

/// What starts by a unit of this text in `/etc`, with this drop-in.
fn runs(unit: &[u8], drop_in: &[u8]) -> Runs {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("etc/systemd/system");
    let name = "buildbot-master.service";
    fs::create_dir_all(directory.join(format!("{name}.d"))).unwrap();
    fs::write(directory.join(name), unit).unwrap();
    fs::write(directory.join(format!("{name}.d/a.conf")), drop_in).unwrap();
    UnitFiles::list(Some(root.path()), None).of_unit(name).runs
}

proptest! {
    #[test]
    fn any_bytes_are_some_unit(unit in any::<Vec<u8>>(), drop_in in any::<Vec<u8>>()) {
        let runs = runs(&unit, &drop_in);
        let is_plain = matches!(runs, Runs::HandMade(_) | Runs::Masked(_));
        prop_assert!(is_plain, "{runs:?}");
        prop_assert_eq!(matches!(runs, Runs::Masked(_)), unit.is_empty());
    }

    #[test]
    fn the_command_in_force_decides_and_nothing_else(
        lines in prop::collection::vec(harmless_lines(), 4),
        is_ours in any::<bool>(),
        is_taken_back in any::<bool>(),
        wrapper in prop_oneof![Just(""), Just("-"), Just("/usr/bin/nice -n 5 \\\n# x\n ")],
    ) {
        let command = |is_ours| if is_ours { paths::LAUNCHER } else { "/opt/launcher" };
        let [first, second, third, last] = &lines[..] else { unreachable!() };
        let unit = format!(
            "{first}\n[Unit]\n{second}\n[Service]\n{third}\nExecStart={wrapper}{} master\n{last}\n",
            command(is_ours)
        );
        let drop_in = format!("{third}\n[Service]\n{second}\nExecStart=\nExecStart={}\n", command(!is_ours));
        let drop_in = if is_taken_back { drop_in } else { first.clone() };
        let runs = runs(unit.as_bytes(), drop_in.as_bytes());
        prop_assert_eq!(matches!(runs, Runs::Copy(_)), is_ours != is_taken_back, "{}\n{}\n{:?}", unit, drop_in, runs);
    }
}
