//! `bench install`: how long `apt install` takes for our package and for one with a single file, alternately on one
//! booted machine. Each is purged afterwards, so that every installation is a first one.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use buildbot_conda_machine::Machine;

use super::InstallArguments;
use super::measure::{self, Figures, Series};
use crate::deb;

/// How much longer ours may take, in milliseconds.
const ALLOWED: f64 = 1000.0;

/// Makes the package `trivial` in the machine.
const TRIVIAL: &str = "mkdir -p /root/trivial/DEBIAN /root/trivial/usr/share/trivial
echo one >/root/trivial/usr/share/trivial/file
printf 'Package: trivial\\nVersion: 1\\nArchitecture: all\\nMaintainer: Nobody <nobody@example.org>\\nDescription: nothing\\n' \
    >/root/trivial/DEBIAN/control
dpkg-deb --root-owner-group --build /root/trivial /root/trivial.deb";

/// Installs one package, prints the duration in seconds, and purges it.
const STOPWATCH: &str = "export DEBIAN_FRONTEND=noninteractive
begin=$(date +%s.%N)
apt-get install --yes \"/root/$0.deb\" >/dev/null </dev/null
end=$(date +%s.%N)
apt-get purge --yes \"$0\" >/dev/null </dev/null
echo \"$begin $end\"";

pub(super) fn run(workspace: &std::path::Path, arguments: &InstallArguments) -> Result<()> {
    let package = deb::build(workspace)?;
    let machine = Machine::builder(arguments.release)?.boot()?;
    machine.copy_in(&package, "/root/buildbot-conda.deb")?;
    machine.shell(TRIVIAL)?.succeeded()?;

    let names = ["trivial", "buildbot-conda"];
    let mut times = names.map(|_| Vec::new());
    // The first round makes the account, which stays, and warms the caches.
    for round in 0..=arguments.runs {
        for (name, times) in names.iter().zip(&mut times) {
            let time = once(&machine, name)?;
            if round > 0 {
                times.push(time);
            }
        }
    }
    let [trivial, ours] = times;
    let figures = measure::compare(vec![
        Series {
            name: "apt install: a package of one file".to_owned(),
            times: trivial,
            against: None,
            wanted: None,
        },
        Series {
            name: "apt install: ours".to_owned(),
            times: ours,
            against: Some(0),
            wanted: None,
        },
    ]);
    let text = if arguments.json {
        serde_json::to_string_pretty(&figures).context("write JSON")? + "\n"
    } else {
        format!("{}\n{}\n", measure::table(&figures), difference(&figures))
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
}

fn once(machine: &Machine, name: &str) -> Result<Duration> {
    let output = machine.run(&["sh", "-euc", STOPWATCH, name])?.succeeded()?;
    let (begin, end) = output
        .text()
        .split_once(' ')
        .with_context(|| format!("unexpected output of the stopwatch: `{}`", output.text()))?;
    let seconds = |text: &str| text.parse::<f64>().context("read the seconds");
    Ok(Duration::from_secs_f64(
        (seconds(end)? - seconds(begin)?).max(0.0),
    ))
}

fn difference(figures: &[Figures]) -> String {
    format!(
        "ours takes {:.0} ms longer (wanted: at most {ALLOWED:.0} ms)",
        figures[1].median - figures[0].median
    )
}
