use super::*;

/// The unit's command line in `/home/bb`, with these scripts on disk.
fn read(command: &[&str], scripts: &[(&str, &str)]) -> Reading {
    let files: BTreeMap<&str, &str> = scripts.iter().copied().collect();
    let look = |path: &str| {
        let text = files.get(path).map(|text| (*text).to_owned());
        text.ok_or_else(|| "no such file".to_owned())
    };
    let variables = BTreeMap::from([("HOME".to_owned(), "/home/bb".to_owned())]);
    let words: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    let place = Place {
        file: "unit".to_owned(),
        line: 7,
    };
    Reader::new(&look, &variables, "/home/bb").command_line(&place, &words)
}

/// Root, environment and directory, `-` for what is not known.
fn told(reading: &Reading) -> [String; 3] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let target = reading.target.as_ref().map(|found| match &found.value {
        Target::Named(name) => name.clone(),
        Target::Prefix(path) => path.clone(),
    });
    [
        or_dash(reading.root.as_ref().map(|found| found.value.clone())),
        or_dash(target),
        or_dash(reading.start.as_ref().map(|found| {
            let (role, directory) = &found.value;
            format!("{role} {directory}")
        })),
    ]
}

#[track_caller]
fn script(text: &str, expect: [&str; 3]) {
    let reading = read(&["/home/bb/start.sh"], &[("/home/bb/start.sh", text)]);
    assert_eq!(told(&reading), expect, "{:?}", reading.problems);
    assert_eq!(reading.problems, [], "{text}");
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
         export PATH=\"/opt/conda/bin:$PATH\"\nfi\nfi\nunset __conda_setup\n\
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
    assert_eq!(told(&direct), ["-", "/opt/c/envs/bb", "master /srv/m"]);
    let inline = read(
        &[
            "/bin/bash",
            "-lc",
            "source /opt/c/bin/activate bb; exec buildbot start --nodaemon m",
        ],
        &[],
    );
    assert_eq!(told(&inline), ["/opt/c", "bb", "master /home/bb/m"]);
    let called = read(
        &["/bin/sh", "-e", "s.sh", "gpu"],
        &[(
            "/home/bb/s.sh",
            ". /opt/c/bin/activate $1\nbuildbot-worker start w-$1",
        )],
    );
    assert_eq!(told(&called), ["/opt/c", "gpu", "worker /home/bb/w-gpu"]);
}

#[test]
fn exported_variables_and_what_is_left_behind_are_told_with_their_lines() {
    let text = "export TZ=UTC N='a b'\nexport HOST=$(hostname)\nrm -f m/twistd.pid\nulimit -n 4096\n. ~/.bashrc\n\
                A=1\nexport A\nsource /opt/c/bin/activate bb\nbuildbot start --nodaemon m\n";
    let reading = read(&["/home/bb/start.sh"], &[("/home/bb/start.sh", text)]);
    let exported: Vec<String> = reading
        .exported
        .iter()
        .map(|(name, found)| format!("{name}={} {}", found.value, found.place.line))
        .collect();
    assert_eq!(exported, ["A=1 7", "N=a b 1", "TZ=UTC 1"]);
    let left: Vec<String> = reading
        .left
        .iter()
        .map(|remark| format!("{} {}", remark.place.line, remark.text))
        .collect();
    assert_eq!(
        left,
        [
            "2 export HOST=$(hostname)",
            "3 rm -f m/twistd.pid",
            "4 ulimit -n 4096",
            "5 . ~/.bashrc"
        ]
    );
}

#[track_caller]
fn problem(text: &str, expect: &str) {
    let reading = read(&["/home/bb/start.sh"], &[("/home/bb/start.sh", text)]);
    let problems: Vec<String> = reading
        .problems
        .iter()
        .map(|remark| format!("{}: {}", remark.place, remark.text))
        .collect();
    assert_eq!(problems, [expect], "{text}");
}

#[test]
fn what_takes_a_shell_to_know_is_a_problem_with_its_place() {
    problem(
        "\nsource activate $(cat env)\nbuildbot start m\n",
        "/home/bb/start.sh:2: `$(cat env)` cannot be told without running it",
    );
    problem(
        "conda activate a\ncase $1 in\nstart) buildbot start m ;;\nesac\n",
        "/home/bb/start.sh:3: `buildbot start m` depends on a condition",
    );
    problem(
        "if x; then conda activate a; fi\nbuildbot start m\n",
        "/home/bb/start.sh:1: `conda activate a` depends on a condition",
    );
    problem(
        "cd $(pwd)\nbuildbot start m\n",
        "/home/bb/start.sh:2: `m` cannot be told without running it",
    );
    problem(
        "buildbot start m &\n",
        "/home/bb/start.sh:1: `buildbot start m` runs in the background",
    );
    problem(
        "sudo -u x buildbot start m\n",
        "/home/bb/start.sh:1: `sudo -u x buildbot start m` changes the account or hides what is started",
    );
    problem(
        "./start.sh\n",
        "/home/bb/start.sh:1: scripts call each other too deeply",
    );
    problem("true\n", "unit:7: it is not seen to start Buildbot");
    problem(
        "A=(x y)\nbuildbot start m\n",
        "/home/bb/start.sh:1: an array is not understood here",
    );
    problem(
        "alias buildbot=false\nbuildbot start m\n",
        "/home/bb/start.sh:1: `alias` is not understood here",
    );
    problem(
        "bash other.sh\n",
        "/home/bb/start.sh:1: read `/home/bb/other.sh`: no such file",
    );
}

#[test]
fn scripts_that_never_end_are_read_to_an_end() {
    let doubled = "A=$A$A\n".repeat(64);
    for (text, expect) in [
        (
            "A='sh -c \"$A\"'\nsh -c \"$A\"",
            "start each other too deeply",
        ),
        (
            "A='sh -c \"$A\"; sh -c \"$A\"'\nsh -c \"$A\"",
            "more often than is read here",
        ),
        (&*"nice ".repeat(50_000), "start each other too deeply"),
        (&*"./start.sh\n".repeat(100), "more often than is read here"),
        (
            &*format!("A=x\n{doubled}cd \"$A\"\nbuildbot start m\n"),
            "`m` cannot be told without running it",
        ),
        (
            &*format!("{}buildbot start m\n", "{ ".repeat(50_000)),
            "`buildbot start m` depends on a condition",
        ),
    ] {
        let reading = read(&["/home/bb/start.sh"], &[("/home/bb/start.sh", text)]);
        let problems = || reading.problems.iter().map(|remark| &remark.text);
        assert!(problems().any(|text| text.ends_with(expect)), "{expect}");
        assert!(problems().count() < 2000, "{expect}");
    }
}
