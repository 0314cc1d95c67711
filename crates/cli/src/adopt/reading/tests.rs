use super::*;
use crate::adopt::verdict::{Judged, Verdict};

/// The unit's command line in `/home/bb`, with these scripts on disk.
fn read(command: &[&str], scripts: &[(&str, &str)]) -> Reading {
    let files: BTreeMap<&str, &str> = scripts.iter().copied().collect();
    let read = |path: &str| {
        let text = files.get(path).map(|text| (*text).to_owned());
        text.ok_or_else(|| "no such file".to_owned())
    };
    // Whatever has such a name is an environment with everything in it.
    let exists = |path: &str| {
        let is_conda = [
            "/opt/c",
            "/opt/mc",
            "/opt/conda",
            "/home/bb/c",
            "/home/bb/mf",
            "/home/bb/anaconda3",
        ]
        .iter()
        .any(|root| {
            path.strip_prefix(root)
                .is_some_and(|rest| rest.starts_with('/'))
        });
        files.contains_key(path) || (is_conda && !path.contains("condarc"))
    };
    let variables = Variables::from([("HOME".to_owned(), (Some("/home/bb".to_owned()), None))]);
    let words: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    let place = Place {
        file: "unit".to_owned(),
        line: 7,
    };
    let files = Files {
        read: &read,
        exists: &exists,
    };
    Reader::new(files, &variables, false, "/home/bb").command_line(&place, &words)
}

/// Root, environment and directory, `-` for what is not known.
fn summary(reading: &Reading) -> [String; 3] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let start = reading.start.as_ref();
    let target = start.and_then(|start| start.target.as_ref());
    let target = target.map(|found| match &found.value {
        Target::Named(name) => name.clone(),
        Target::Prefix(path) => path.clone(),
    });
    [
        or_dash(
            start
                .and_then(|start| start.root.as_ref())
                .map(|found| found.value.clone()),
        ),
        or_dash(target),
        or_dash(start.map(|start| format!("{} {}", start.role, start.directory))),
    ]
}

fn problems(reading: &Reading) -> Vec<String> {
    let refused = |judged: &Judged| match &judged.verdict {
        Verdict::Refused { reason, .. } => Some(format!("{}: {reason}", judged.place)),
        _ => None,
    };
    reading.verdicts.0.iter().filter_map(refused).collect()
}

#[track_caller]
fn script(text: &str, expect: [&str; 3]) {
    let reading = read(&["/home/bb/start.sh"], &[("/home/bb/start.sh", text)]);
    assert_eq!(problems(&reading), Vec::<String>::new(), "{text}");
    assert_eq!(summary(&reading), expect, "{text}");
}

#[test]
fn wrapper_scripts_as_people_write_them_are_understood() {
    script(
        "#!/bin/bash\nexport PATH=/opt/conda/bin:$PATH\nsource activate buildbot\nbuildbot start --nodaemon master\n",
        ["/opt/conda", "buildbot", "master /home/bb/master"],
    );
    script(
        "source ~/anaconda3/bin/activate bb && cd worker/ && exec buildbot-worker start --nodaemon\n",
        ["/home/bb/anaconda3", "bb", "worker /home/bb/worker"],
    );
    script(
        "set -euo pipefail\nROOT=$HOME/mf\n. \"$ROOT/etc/profile.d/conda.sh\"\nconda activate \"${ENVIRONMENT:-ci}\"\n\
         cd \"$(dirname \"$0\")\"\nexec nice -n 5 buildbot start -n ./m\n",
        ["/home/bb/mf", "ci", "master /home/bb/m"],
    );
    script(
        "eval \"$(/opt/mc/bin/conda shell.bash hook)\"\nconda activate /srv/envs/x\nbuildbot start --nodaemon /srv/m 2>&1\n",
        ["/opt/mc", "/srv/envs/x", "master /srv/m"],
    );
    script(
        "/opt/c/bin/conda run --no-capture-output -n bb --cwd /srv buildbot start --nodaemon m\n",
        ["/opt/c", "bb", "master /srv/m"],
    );
    script(
        "/opt/c/envs/bb/bin/python -u /opt/c/envs/bb/bin/buildbot start --nodaemon m\n",
        ["-", "/opt/c/envs/bb", "master /home/bb/m"],
    );
    script(
        "export PATH=\"$HOME/c/envs/bb/bin:$PATH\"\ntwistd -ny m/buildbot.tac\n",
        ["-", "/home/bb/c/envs/bb", "master /home/bb/m"],
    );
}

#[test]
fn what_conda_init_writes_tells_where_conda_is() {
    script(
        "# >>> conda initialize >>>\n\
         __conda_setup=\"$('/opt/conda/bin/conda' 'shell.bash' 'hook' 2> /dev/null)\"\n\
         if [ $? -eq 0 ]; then\n    eval \"$__conda_setup\"\nelse\n\
         if [ -f \"/opt/conda/etc/profile.d/conda.sh\" ]; then\n\
         . \"/opt/conda/etc/profile.d/conda.sh\"\nelse\n\
         export PATH=\"/opt/conda/bin:$PATH\"\nfi\nfi\nunset __conda_setup\n# <<< conda initialize <<<\n\
         conda activate bb\nbuildbot start --nodaemon m\n",
        ["/opt/conda", "bb", "master /home/bb/m"],
    );
}

#[test]
fn command_lines_without_a_script_are_understood() {
    let direct = read(
        &[
            "/opt/c/envs/bb/bin/buildbot",
            "start",
            "--nodaemon",
            "/srv/m",
        ],
        &[],
    );
    assert_eq!(summary(&direct), ["-", "/opt/c/envs/bb", "master /srv/m"]);
    let inline = read(
        &[
            "/bin/bash",
            "-ec",
            "source /opt/c/bin/activate bb; exec buildbot start --nodaemon m",
        ],
        &[],
    );
    assert_eq!(summary(&inline), ["/opt/c", "bb", "master /home/bb/m"]);
    let called = read(
        &["/bin/sh", "-e", "s.sh", "gpu"],
        &[(
            "/home/bb/s.sh",
            ". /opt/c/bin/activate $1\nbuildbot-worker start w-$1",
        )],
    );
    assert_eq!(summary(&called), ["/opt/c", "gpu", "worker /home/bb/w-gpu"]);
}

#[test]
fn exported_variables_and_what_is_left_behind_are_told_with_their_lines() {
    let text = "export TZ=UTC N='a b'\nrm -f m/twistd.pid\nulimit -n 4096\numask 027\nPRIVATE=1\n\
                A=1\nexport A\nsource /opt/c/bin/activate bb\nB=2 nice -n 3 buildbot start --nodaemon m >>log 2>&1\nexport LATE=1\n";
    let reading = read(&["/home/bb/start.sh"], &[("/home/bb/start.sh", text)]);
    assert_eq!(problems(&reading), Vec::<String>::new());
    let start = reading.start.as_ref().unwrap();
    let exported: Vec<String> = start
        .exported
        .iter()
        .map(|(name, found)| format!("{name}={} {}", found.value, found.place.line))
        .collect();
    assert_eq!(exported, ["A=1 7", "B=2 9", "N=a b 1", "TZ=UTC 1"]);
    let process: Vec<String> = start
        .process
        .iter()
        .map(|(key, found)| format!("{key}={} {}", found.value, found.place.line))
        .collect();
    assert_eq!(process, ["LimitNOFILE=4096 3", "Nice=3 9", "UMask=0027 4"]);
    let left: Vec<String> = reading
        .verdicts
        .0
        .iter()
        .filter(|judged| judged.verdict == Verdict::Left)
        .map(|judged| format!("{} {}", judged.place.line, judged.text))
        .collect();
    assert_eq!(left, ["2 rm -f m/twistd.pid", "9 >>log 2>&1"]);
}

#[track_caller]
fn problem(text: &str, expect: &[&str]) {
    let reading = read(&["/home/bb/start.sh"], &[("/home/bb/start.sh", text)]);
    assert_eq!(problems(&reading), expect, "{text}");
}

#[test]
fn what_takes_a_shell_to_know_is_a_problem_with_its_place() {
    problem(
        "\nsource activate $(cat env)\nbuildbot start m\n",
        &["/home/bb/start.sh:2: the value of `$(cat env)` is known only at run time"],
    );
    problem(
        "conda activate a\ncase $(x) in\nstart) buildbot start m ;;\nesac\n",
        &["/home/bb/start.sh:3: `buildbot start m` depends on a condition"],
    );
    problem(
        "if x; then conda activate a; fi\nbuildbot start m\n",
        &["/home/bb/start.sh:1: `conda activate a` depends on a condition"],
    );
    problem(
        "cd $(x)\nbuildbot start /m\n",
        &["/home/bb/start.sh:1: the value of `cd $(x)` is known only at run time"],
    );
    problem(
        "buildbot start m &\n",
        &["/home/bb/start.sh:1: `buildbot start m` runs in the background"],
    );
    problem(
        "sudo -u x buildbot start m\n",
        &[
            "/home/bb/start.sh:1: `sudo -u x buildbot start m` changes the account or hides the command that is started",
        ],
    );
    problem(
        "./start.sh\n",
        &["/home/bb/start.sh:1: too many levels of scripts that call scripts"],
    );
    problem(
        "true\n",
        &["unit:7: no command was found that starts Buildbot"],
    );
    problem(
        "A=(x y)\nbuildbot start m\n",
        &["/home/bb/start.sh:1: an array is not supported"],
    );
    problem(
        "alias buildbot=false\nbuildbot start m\n",
        &["/home/bb/start.sh:1: `alias buildbot=false` is not supported"],
    );
    problem(
        "bash other.sh\n",
        &["/home/bb/start.sh:1: read `/home/bb/other.sh`: no such file"],
    );
}

#[test]
fn scripts_that_never_end_are_read_to_an_end() {
    let doubled = "A=$A$A\n".repeat(64);
    for (text, expect) in [
        (
            "export A='sh -c \"$A\"'\nsh -c \"$A\"",
            "too many levels of commands that start commands",
        ),
        (
            "export A='sh -c \"$A\"; sh -c \"$A\"'\nsh -c \"$A\"",
            "call each other too often",
        ),
        (
            &*"nice ".repeat(50_000),
            "too many levels of commands that start commands",
        ),
        (&*"./start.sh\n".repeat(100), "call each other too often"),
        (
            &*format!("A=x\n{doubled}cd \"$A\"\nbuildbot start m\n"),
            "the value of `cd \"$A\"` is known only at run time",
        ),
        (
            &*format!("{}buildbot start m\n", "{ ".repeat(50_000)),
            "such deep nesting of commands is not supported",
        ),
    ] {
        let reading = read(&["/home/bb/start.sh"], &[("/home/bb/start.sh", text)]);
        let problems = problems(&reading);
        assert!(
            problems.iter().any(|text| text.ends_with(expect)),
            "{expect}: {problems:?}"
        );
        assert!(problems.len() < 2000, "{expect}");
    }
}
