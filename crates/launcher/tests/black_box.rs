//! The real launcher below a separate root directory: what it executes, and what it refuses. The interpreter is a
//! script that prints its arguments and environment; the runner's tests and booted machines start Buildbot itself.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose host cannot be set up has failed"
)]

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use buildbot_conda_core::dropin::DropIn;
use buildbot_conda_core::settings::Settings;
use tempfile::TempDir;

/// A host with one good master.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        host.write("etc/buildbot-conda/config.toml", &host.configuration(""));
        host.write("conda/envs/buildbot/conda-meta/history", "");
        host.executable(
            "conda/envs/buildbot/bin/python",
            "#!/bin/sh\nprintf '%s\\n' \"$@\"\nenv\n",
        );
        host.executable("conda/envs/buildbot/bin/buildbot", "");
        host.write("srv/master/buildbot.tac", "");
        host
    }

    fn configuration(&self, more: &str) -> String {
        format!(
            "[defaults]\nconda-root = '{root}/conda'\n[master]\ndirectory = '{root}/srv/master'\n{more}",
            root = self.root()
        )
    }

    fn root(&self) -> String {
        self.directory.path().to_str().unwrap().to_owned()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Written by another process: a program that a parallel test starts could briefly inherit a descriptor of this
    /// process that is open for writing, and then the file cannot be executed (`ETXTBSY`, execve(2)).
    fn executable(&self, path: &str, content: &str) {
        self.write(path, "");
        let mut shell = Command::new("sh")
            .args(["-euc", "cat >\"$0\"; chmod \"$1\" \"$0\""])
            .arg(self.path(path))
            .arg("755")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        stdin.write_all(content.as_bytes()).unwrap();
        drop(stdin);
        assert!(shell.wait().unwrap().success());
    }

    fn launcher(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_buildbot-conda-launcher"));
        command
            .args([Path::new("--root"), self.directory.path()])
            .env_clear()
            .env("PATH", "/usr/bin:/bin");
        command
    }

    fn launch(&self) -> Output {
        self.launcher().arg("master").output().unwrap()
    }

    /// Refused with 78 and this on stderr, `{root}` being the host's root directory.
    #[track_caller]
    fn refuses(&self, expect: &str) {
        let output = self.launch();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.replace(&self.root(), "{root}"), expect);
        assert_eq!(output.status.code(), Some(78));
        assert!(output.stdout.is_empty());
    }
}

fn lines(output: &Output) -> Vec<String> {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// A user could have replaced it by a link to any file of root, which Buildbot would then receive.
#[test]
fn a_credential_in_a_place_of_others_is_refused() {
    let host = Host::new();
    let configuration = host.configuration("credentials = { door = '/home/bb/key' }\n");
    host.write("etc/buildbot-conda/config.toml", &configuration);
    host.write("home/bb/key", "secret");
    lines(&host.launch());
    let home = host.path("home/bb");
    fs::set_permissions(home, Permissions::from_mode(0o777)).unwrap();
    let line = configuration.lines().count();
    host.refuses(&format!(
        "error: {{root}}/etc/buildbot-conda/config.toml:{line}:24: master.credentials.door: `/home/bb/key` goes \
         through `{{root}}/home/bb`, which is writable by accounts other than root (mode 0777)\n\
         hint: store it in `/etc/buildbot-conda/credentials`, owned by root and writable only by root\n"
    ));
}

#[test]
fn the_runner_gets_role_directory_and_settings() {
    let host = Host::new();
    host.write(
        "etc/buildbot-conda/config.toml",
        &host.configuration(
            "drain = '2min'\nstart-timeout = '1500ms'\nlog = 'both'\nupgrade = 'manual'\nname = 'farm'\n",
        ),
    );
    let said = lines(&host.launch());
    let expect = format!(
        "{root}/usr/libexec/buildbot-conda/runner.py master {root}/srv/master --reference master \
         --start-timeout 1.500 --drain 120 --log both --upgrade manual --name farm",
        root = host.root()
    );
    let expect: Vec<&str> = expect.split(' ').collect();
    assert_eq!(said[..expect.len()], expect);
}

#[test]
fn the_environment_is_activated_from_nothing() {
    let host = Host::new();
    let output = host
        .launcher()
        .arg("master")
        .env("CONDA_PREFIX", "/old")
        .env("CONDA_SHLVL", "3")
        .env("BASH_ENV", "/tmp/evil")
        .output()
        .unwrap();
    let said = lines(&output);
    let prefix = format!("{}/conda/envs/buildbot", host.root());
    assert!(said.contains(&format!("CONDA_PREFIX={prefix}")));
    assert!(said.contains(&"CONDA_SHLVL=1".to_owned()));
    assert!(
        said.contains(&format!("PATH={prefix}/bin:/usr/bin:/bin")),
        "{said:?}"
    );
    assert!(
        !said
            .iter()
            .any(|line| line.starts_with("BASH_ENV=") || line.starts_with("CONDA_EXE="))
    );
}

#[test]
fn condarc_says_how_the_environment_is_activated() {
    let host = Host::new();
    let prefix = format!("{}/conda/envs/buildbot", host.root());
    host.write(
        "conda/envs/buildbot/conda-meta/state",
        r#"{"env_vars": {"http_proxy": "http://p", "conda_prefix": "mine"}}"#,
    );
    // As conda, in whose upper case the second one would be its own.
    host.refuses(
        "error: activate `{root}/conda/envs/buildbot`: it sets `conda_prefix`, which is reserved for the active environment\n\
         hint: conda cannot activate it either; run `conda env config vars unset -p {root}/conda/envs/buildbot \
         conda_prefix`\n"
    );
    // An account's own settings count before those of the installation, and those of the system least.
    host.write(
        "etc/conda/condarc",
        "envvars_force_uppercase: true\nchangeps1: false\n",
    );
    host.write("conda/.condarc", "envvars_force_uppercase: false\n");
    host.write("home/.condarc", "env_prompt: '<{name}> '\n");
    let launch = || {
        let mut command = host.launcher();
        command.arg("master").env("HOME", host.path("home"));
        command
    };
    let said = lines(&launch().output().unwrap());
    for line in [
        "http_proxy=http://p",
        "conda_prefix=mine",
        "CONDA_PROMPT_MODIFIER=",
    ] {
        assert!(said.iter().any(|found| found == line), "{line}: {said:?}");
    }
    assert!(said.contains(&format!("CONDA_PREFIX={prefix}")));
    assert!(
        !said.iter().any(|line| line.starts_with("HTTP_PROXY=")),
        "{said:?}"
    );
    // So do variables of the unit.
    let prompt = launch().env("CONDA_CHANGEPS1", "yes").output().unwrap();
    assert!(lines(&prompt).contains(&"CONDA_PROMPT_MODIFIER=<buildbot> ".to_owned()));
    // A file that affects activation and cannot be read is refused; other content of a file does not concern the
    // service.
    host.write("home/.condarc", "channels: [\n");
    lines(&launch().output().unwrap());
    host.write("home/.condarc", "changeps1: [\n");
    let output = launch().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78));
    assert!(
        said.contains(&format!("error: read `{}/home/.condarc`: ", host.root()))
            && said.contains("hint: "),
        "{said}"
    );
}

#[test]
fn a_conda_in_the_root_is_part_of_the_environment() {
    let host = Host::new();
    host.executable("conda/bin/conda", "");
    let said = lines(&host.launch());
    assert!(said.contains(&format!("CONDA_EXE={}/conda/bin/conda", host.root())));
}

#[test]
fn scripts_run_before_and_the_configuration_has_the_last_word() {
    let host = Host::new();
    host.write(
        "conda/envs/buildbot/etc/conda/activate.d/a.sh",
        "export A=script B=script\n",
    );
    host.write(
        "etc/buildbot-conda/config.toml",
        &host.configuration("environment = { B = \"two\\nlines $HOME 'x'\" }\n"),
    );
    let said = lines(&host.launch());
    assert!(said.contains(&"A=script".to_owned()));
    assert!(said.contains(&"B=two".to_owned()) && said.contains(&"lines $HOME 'x'".to_owned()));
}

/// A host whose environment has an activation script, with a run-time directory and a socket in place of systemd's.
struct Scripted {
    host: Host,
    run: PathBuf,
    listener: UnixDatagram,
}

impl Scripted {
    fn new(script: &str) -> Self {
        let host = Host::new();
        let run = host.path("run/buildbot-conda/master");
        fs::create_dir_all(&run).unwrap();
        let listener = UnixDatagram::bind(host.path("notify")).unwrap();
        listener
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let scripted = Self {
            host,
            run,
            listener,
        };
        scripted.write(script);
        scripted
    }

    fn write(&self, script: &str) {
        let path = "conda/envs/buildbot/etc/conda/activate.d";
        self.host.write(&format!("{path}/a.sh"), "echo from a\n");
        self.host.write(&format!("{path}/foo.sh"), script);
    }

    /// The status line at the end, and the outcome.
    fn launch(&self) -> (String, Output) {
        let output = self
            .host
            .launcher()
            .arg("master")
            .env("NOTIFY_SOCKET", self.host.path("notify"))
            .env("RUNTIME_DIRECTORY", &self.run)
            .output()
            .unwrap();
        let mut status = String::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.listener.recv(&mut buffer) {
            status = String::from_utf8_lossy(&buffer[..length]).into_owned();
        }
        (status.replace(&self.host.root(), "{root}"), output)
    }

    #[track_caller]
    fn is_refused(&self, script: &str, expect: &str) {
        self.write(script);
        let (status, output) = self.launch();
        assert!(status.contains(expect), "{script}: {status}\n{output:?}");
        assert!(status.contains("activate.d/foo.sh`"), "{script}: {status}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("\nerror: the activation script `"),
            "{script}: {said}"
        );
        assert!(said.starts_with("from a\n"), "{script}: {said}");
        assert_eq!(output.status.code(), Some(78), "{script}: {said}");
        assert!(output.stdout.is_empty(), "{script}");
    }
}

#[test]
fn a_script_that_leaves_its_shell_is_refused_with_its_name_its_status_and_its_last_words() {
    let scripted = Scripted::new("");
    for (script, expect) in [
        (
            "[ -n \"$FOO\" ] || exit 0\n",
            "ended its shell with status 0; hint: ",
        ),
        (
            "echo no licence\nexit 1\n",
            "ended its shell with status 1: no licence; hint: ",
        ),
        (
            "set -e\nls /nowhere >&2\n",
            "ended its shell with status 2: ls: cannot access",
        ),
        ("set -u\necho $FOO\n", "status 127: {root}"),
        ("set -u\necho $FOO\n", "FOO: unbound variable; hint: "),
        ("trap - EXIT; exit 0\n", "status 0; hint: "),
        ("trap 'echo mine' EXIT; exit 5\n", "status 5: mine; hint: "),
        (
            "unset RUNTIME_DIRECTORY; exec 1>/dev/null; exit 9\n",
            "status 9; hint: ",
        ),
    ] {
        scripted.is_refused(script, expect);
    }
    scripted.write("echo fine; export A=1\n");
    let (status, output) = scripted.launch();
    assert_eq!(
        status,
        "STATUS=activating the environment: activate.d/a.sh, foo.sh"
    );
    assert!(lines(&output).contains(&"A=1".to_owned()));
    assert_eq!(output.stderr, b"from a\nfine\n");
}

#[test]
fn a_script_that_hangs_is_ended_at_the_time_out_of_the_start() {
    let scripted = Scripted::new("");
    let configuration = scripted.host.configuration("start-timeout = '1s'\n");
    let host = &scripted.host;
    host.write("etc/buildbot-conda/config.toml", &configuration);
    for (script, command) in [
        ("echo waiting\nsleep 4\n", "sleep 4"),
        ("echo waiting\nwhile true; do :; done\n", ""),
    ] {
        scripted.is_refused(script, "did not finish within 1 s");
        scripted.is_refused(script, &format!("`{command}"));
        scripted.is_refused(script, ": waiting; hint: ");
    }
    // The program that it executes instead of the shell is terminated by the signal, which the units do not restart.
    scripted.write("exec sleep 60\n");
    let (status, output) = scripted.launch();
    assert_eq!(output.status.signal(), Some(14));
    assert_eq!(
        status,
        "STATUS=activating the environment: activate.d/a.sh, foo.sh"
    );
}

#[test]
fn a_script_that_no_shell_can_report_is_refused_after_three_starts_and_then_run_again() {
    for (script, words) in [
        ("echo before; kill -KILL $$\n", ": before; hint: "),
        ("exec true\n", "in 3 starts; hint: "),
        ("trap 'echo mine' EXIT; builtin exit 5\n", ": mine; hint: "),
        ("kill $$; sleep 1\n", "in 3 starts"),
    ] {
        let scripted = Scripted::new(script);
        for _ in 0..2 {
            for _ in 0..3 {
                let (status, output) = scripted.launch();
                assert_ne!(output.status.code(), Some(78), "{script}");
                assert!(status.contains("foo.sh"), "{status}");
            }
            scripted.is_refused(script, words);
        }
        scripted.launch();
        scripted.write("");
        for _ in 0..5 {
            assert!(scripted.launch().1.status.success());
        }
    }
}

#[test]
fn without_a_place_for_notes_the_start_goes_on_and_an_end_is_reported() {
    let scripted = Scripted::new("echo two\n");
    fs::remove_dir(&scripted.run).unwrap();
    assert!(scripted.launch().1.status.success());
    scripted.write("exit 3\n");
    let (status, output) = scripted.launch();
    assert_eq!(output.status.code(), Some(78));
    assert!(
        status.contains("foo.sh` ended its shell with status 3"),
        "{status}"
    );
}

#[test]
fn named_instances_have_tables_of_their_own() {
    let host = Host::new();
    host.executable("conda/envs/buildbot/bin/buildbot-worker", "");
    host.write("srv/a b%n/buildbot.tac", "");
    host.write(
        "etc/buildbot-conda/config.toml",
        &host.configuration(&format!(
            "['worker@gpu']\ndirectory = '{}/srv/a b%n'\n",
            host.root()
        )),
    );
    let output = host.launcher().args(["worker", "gpu"]).output().unwrap();
    let said = lines(&output);
    assert_eq!(
        said[1..5],
        [
            "worker",
            &format!("{}/srv/a b%n", host.root()),
            "--reference",
            "worker@gpu"
        ]
    );
}

#[test]
fn a_missing_environment_is_refused() {
    let host = Host::new();
    fs::remove_dir_all(host.path("conda/envs/buildbot")).unwrap();
    host.refuses(
        "error: environment `{root}/conda/envs/buildbot` not found\n\
         hint: create it with `conda create -p {root}/conda/envs/buildbot`, or correct the path\n",
    );
}

#[test]
fn a_prefix_without_conda_meta_is_refused() {
    let host = Host::new();
    fs::remove_dir_all(host.path("conda/envs/buildbot/conda-meta")).unwrap();
    let output = host.launch();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78));
    assert!(
        said.contains("`conda-meta`") && said.contains("hint: "),
        "{said}"
    );
}

#[test]
fn state_that_is_no_json_is_refused_with_its_path() {
    let host = Host::new();
    host.write("conda/envs/buildbot/conda-meta/state", "{\"env_vars\": ");
    let output = host.launch();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78));
    assert!(
        said.contains("conda/envs/buildbot/conda-meta/state") && said.contains("hint: "),
        "{said}"
    );
}

#[test]
fn an_environment_without_python_is_refused() {
    let host = Host::new();
    fs::remove_file(host.path("conda/envs/buildbot/bin/python")).unwrap();
    host.refuses(
        "error: executable `{root}/conda/envs/buildbot/bin/python` not found\n\
         hint: install Python into the environment with the program that created it, such as micromamba or pixi\n",
    );
}

#[test]
fn an_environment_without_buildbot_is_refused() {
    let host = Host::new();
    host.executable("conda/bin/conda", "");
    fs::remove_file(host.path("conda/envs/buildbot/bin/buildbot")).unwrap();
    host.refuses(
        "error: `buildbot` not found in the environment `{root}/conda/envs/buildbot`\n\
         hint: install it: `{root}/conda/bin/conda install --prefix {root}/conda/envs/buildbot --channel conda-forge buildbot`\n",
    );
    host.write(
        "conda/envs/buildbot/lib/python3.11/site-packages/buildbot/__init__.py",
        "",
    );
    assert!(host.launch().status.success());
}

#[test]
fn the_strict_sandbox_is_refused_below_systemd_250() {
    let host = Host::new();
    host.write(
        "etc/buildbot-conda/config.toml",
        &host.configuration("hardening = \"strict\"\n"),
    );
    host.write("usr/lib/systemd/libsystemd-shared-249.so", "");
    host.refuses(
        "error: `hardening = \"strict\"` needs systemd 250, and this host has 249\n\
         hint: `buildbot-conda set master hardening standard`, or upgrade the system\n",
    );
    host.write("usr/lib/systemd/libsystemd-shared-250.so", "");
    assert!(host.launch().status.success());
}

#[test]
fn a_directory_without_tac_is_refused() {
    let host = Host::new();
    fs::remove_file(host.path("srv/master/buildbot.tac")).unwrap();
    host.refuses(
        "error: `buildbot.tac` not found in `{root}/srv/master`\n\
         hint: create it as the account that runs the \
         instance: `{root}/conda/envs/buildbot/bin/buildbot create-master {root}/srv/master`\n",
    );
    fs::remove_dir(host.path("srv/master")).unwrap();
    host.refuses(
        "error: directory `{root}/srv/master` not found\n\
         hint: set `directory` in the configuration to the directory of `buildbot.tac`\n",
    );
}

#[test]
fn a_directory_that_has_served_is_missed() {
    let host = Host::new();
    host.write("var/lib/buildbot-conda/instances/master/served", "");
    let hint = "hint: mount or restore it, or set `directory` to its new location; `buildbot-conda remove \
                master` if it is no longer needed\n";
    fs::remove_file(host.path("srv/master/buildbot.tac")).unwrap();
    host.refuses(&format!(
        "error: `{{root}}/srv/master` contains no `buildbot.tac`, and `master` has run from it before\n{hint}"
    ));
    fs::remove_dir(host.path("srv/master")).unwrap();
    host.refuses(&format!(
        "error: `{{root}}/srv/master` does not exist, and `master` has run from it before\n{hint}"
    ));
}

#[test]
fn a_bad_configuration_is_refused_with_all_its_problems() {
    let host = Host::new();
    host.write(
        "etc/buildbot-conda/config.toml",
        &host.configuration("usr = 'bb'\ndrain = 5\n"),
    );
    host.refuses(
        "error: {root}/etc/buildbot-conda/config.toml:5:1: master.usr: unknown key\n\
         hint: did you mean `user`?\n\
         error: {root}/etc/buildbot-conda/config.toml:6:9: master.drain: expected text in quotes, found an integer\n\
         hint: write a number and a unit, such as `90s`, `2min` or `1h 30min`\n",
    );
}

#[test]
fn a_bad_neighbour_does_not_matter() {
    let host = Host::new();
    host.write(
        "etc/buildbot-conda/config.toml",
        &host.configuration("['worker@x']\nnope = 1\n['worker@-x']\n"),
    );
    assert!(host.launch().status.success());
}

#[test]
fn a_configuration_that_cannot_be_read_is_refused() {
    let host = Host::new();
    let path = host.path("etc/buildbot-conda/config.toml");
    fs::remove_file(&path).unwrap();
    host.refuses(
        "error: configuration `{root}/etc/buildbot-conda/config.toml` not found\n\
         hint: `dpkg-reconfigure buildbot-conda` writes a new one\n",
    );
    fs::write(&path, b"[defaults]\nuser = '\xff'\n").unwrap();
    host.refuses(
        "error: {root}/etc/buildbot-conda/config.toml:2:9: the byte 0xff is not UTF-8\n\
         hint: save the file as UTF-8\n",
    );
    fs::write(&path, "[defaults]\n").unwrap();
    host.refuses(
        "error: {root}/etc/buildbot-conda/config.toml: no table `[master]`\n\
         hint: add [master] with `directory = \"...\"` to the file, or \
         `systemctl disable buildbot-master.service`\n",
    );
}

#[test]
fn systemd_is_told_the_reason() {
    let host = Host::new();
    fs::remove_file(host.path("srv/master/buildbot.tac")).unwrap();
    let socket = host.path("notify");
    let listener = UnixDatagram::bind(&socket).unwrap();
    listener
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let output = host
        .launcher()
        .arg("master")
        .env("NOTIFY_SOCKET", &socket)
        .env("JOURNAL_STREAM", "8:1")
        .output()
        .unwrap();
    let mut buffer = [0; 4096];
    let length = listener.recv(&mut buffer).unwrap();
    let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(
        message.starts_with("STATUS=`buildbot.tac` not found in `"),
        "{message}"
    );
    assert!(!message.contains('\n'));
    assert!(
        output
            .stderr
            .starts_with(b"<3>error: `buildbot.tac` not found")
    );
}

/// The content that `buildbot-conda-generator` would have written to the drop-in.
fn fingerprint(host: &Host) -> String {
    let path = host.path("etc/buildbot-conda/config.toml");
    let settings = Settings::parse("f", &fs::read(path).unwrap());
    let instance = settings.instance(&"master".parse().unwrap()).unwrap();
    DropIn::of(instance).unwrap().fingerprint()
}

#[test]
fn a_unit_without_its_drop_in_is_refused() {
    let host = Host::new();
    let output = host
        .launcher()
        .arg("master")
        .env("INVOCATION_ID", "x")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("without its settings") && said.contains("daemon-reload"),
        "{said}"
    );
}

#[test]
fn a_unit_of_another_account_is_refused() {
    let host = Host::new();
    let output = host
        .launcher()
        .arg("master")
        .env("INVOCATION_ID", "x")
        .env("USER", "someone")
        .env("BUILDBOT_CONDA_DROP_IN", fingerprint(&host))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("as `someone`, but `bb` is configured"),
        "{said}"
    );
}

#[test]
fn the_environment_from_before_activation_is_handed_over() {
    let host = Host::new();
    host.executable(
        "conda/envs/buildbot/bin/python",
        "#!/bin/sh\n\
         tr '\\0' '\\n' </proc/self/fd/\"$BUILDBOT_CONDA_ENVIRONMENT\"\n",
    );
    let output = host
        .launcher()
        .arg("master")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("ODD", "a=b c")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let expected = [
        "BUILDBOT_CONDA_ENVIRONMENT",
        "ODD=a=b c",
        "PATH=/usr/bin:/bin",
    ];
    assert_eq!(lines(&output), expected);
}

#[test]
fn a_variable_of_the_unit_that_activation_takes_out_is_said() {
    let host = Host::new();
    let output = host
        .launcher()
        .arg("master")
        .env("INVOCATION_ID", "x")
        .env("BUILDBOT_CONDA_DROP_IN", fingerprint(&host))
        .env("BASH_ENV", "/etc/profile.d/site.sh")
        .env("CONDA_DEFAULT_ENV", "other")
        .output()
        .unwrap();
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = "warning: `BASH_ENV` of the unit is left out, as the environment is activated without it; `environment` \
                    in the configuration sets it afterwards\n";
    // Another environment's name gives way to this one's.
    assert_eq!(said, expected);
}

#[test]
fn a_configuration_changed_after_systemd_read_it_is_said() {
    let host = Host::new();
    let old = fingerprint(&host);
    let launch = || {
        let mut command = host.launcher();
        command
            .arg("master")
            .env("INVOCATION_ID", "x")
            .env("USER", "bb")
            .env("BUILDBOT_CONDA_DROP_IN", &old);
        command.output().unwrap()
    };
    let output = launch();
    assert!(output.status.success() && output.stderr.is_empty());
    assert!(
        !lines(&output)
            .iter()
            .any(|line| line.contains("BUILDBOT_CONDA_DROP_IN"))
    );
    host.write(
        "etc/buildbot-conda/config.toml",
        &host.configuration("drain = '2min'\n"),
    );
    let output = launch();
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.starts_with("warning: the configuration was changed after systemd read it"),
        "{said}"
    );
}

#[test]
fn inherited_bytes_survive() {
    let host = Host::new();
    let value = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let output = host
        .launcher()
        .arg("master")
        .env("ODD", value)
        .output()
        .unwrap();
    assert!(
        output
            .stdout
            .windows(6)
            .any(|window| window == b"ODD=\xff\xfe")
    );
}

#[test]
fn wrong_words_are_a_usage_error() {
    let host = Host::new();
    let output = host.launcher().args(["master", "../x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`../x` is not an instance name"));
}

#[test]
fn a_credential_without_its_file_is_refused_with_the_file() {
    use buildbot_conda_core::dropin::MISSING_CREDENTIAL;
    let host = Host::new();
    host.write(
        "etc/buildbot-conda/config.toml",
        &host.configuration("credentials = { token = 'forge', other = 'other' }\n"),
    );
    host.write("run/credentials/other", "something");
    let launch = || {
        host.launcher()
            .arg("master")
            .env("CREDENTIALS_DIRECTORY", host.path("run/credentials"))
            .output()
            .unwrap()
    };
    host.write("run/credentials/token", MISSING_CREDENTIAL);
    let output = launch();
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: file `/etc/buildbot-conda/credentials/forge` of the credential `token` not found\n\
         hint: create it as root, mode 0600, or remove `token` from `credentials`\n"
    );
    assert_eq!(output.status.code(), Some(78));
    host.write("run/credentials/token", "a real one");
    assert_eq!(launch().status.code(), Some(0));
}
