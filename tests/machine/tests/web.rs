//! The pages of a master behind a web server of Debian: open for reading or private, with a login, and hidden again.
//! Only a booted machine has the web server, its service and a Buildbot that it asks.

use anyhow::ensure;
use buildbot_conda_machine::{
    LATER, Layers, MASTER_UNIT, Machine, Outcome, Output, Release, Rest, installed_with,
    on_each_release,
};

on_each_release! { pages_are_shown_to_others_with_a_login_and_hidden_again }

/// All requests to the pages without a login, and then with one; a word and its results on each line.
const REQUESTS: &str = r#"
ask() { curl --silent --max-time 20 --cacert /root/ci.pem --resolve ci.example.org:443:127.0.0.1 --output /root/body \
    --write-out '%{http_code}' "$@" || true; }
all() {
    echo "$1 page $(ask -b /root/jar https://ci.example.org/)"
    echo "$1 rest $(ask -b /root/jar 'https://ci.example.org/api/v2/masters?limit=1')"
    echo "$1 ws $(ask -b /root/jar --max-time 3 --http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \
        -H 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==' https://ci.example.org/ws)"
    echo "$1 sse $(ask -b /root/jar --max-time 3 'https://ci.example.org/sse/listen/builders/*/builds/*/*')"
    echo "$1 force $(ask -b /root/jar -H 'Content-Type: application/json' \
        -d '{"id":1,"jsonrpc":"2.0","method":"force","params":{}}' https://ci.example.org/api/v2/forceschedulers/force)"
}
rm -f /root/jar; touch /root/jar
all stranger
echo "hook $(ask -X POST https://ci.example.org/change_hook/github)"
echo "forged $(ask -H 'X-Buildbot-User: alice' -H "X-Buildbot-Key: $(cat /home/bb/master/web.secret)" \
    -c /root/jar https://ci.example.org/)"
all forger
echo "wrong $(ask -u alice:wrong https://ci.example.org/auth/login)"
echo "robots $(ask https://ci.example.org/robots.txt) $(grep -c 'Disallow: /$' /root/body)"
echo "crawler $(ask -A 'Mozilla/5.0 (compatible; Examplebot/2.1)' https://ci.example.org/)"
echo "huge $(ask 'https://ci.example.org/api/v2/builds?limit=100000')"
echo "login $(ask -u "alice:$(cat /root/password)" -c /root/jar https://ci.example.org/auth/login)"
all alice
echo "logout $(ask -b /root/jar -c /root/jar https://ci.example.org/auth/logout)"
all again
"#;

/// A Debian with the web servers, the environment and the package, and nothing set up.
fn layers(release: Release) -> anyhow::Result<Layers> {
    let below = installed_with(release, "web", "caddy curl nginx openssl")?;
    buildbot_conda_machine::layer(
        "web",
        release,
        below,
        &[include_str!("web.rs")],
        |machine| {
            let certificate = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
                           -keyout /root/ci.key -out /root/ci.pem -subj /CN=ci.example.org \
                           -addext subjectAltName=DNS:ci.example.org";
            machine.shell(certificate)?.succeeded()?;
            machine
                .shell("install -o caddy -m 0600 -t /etc/caddy /root/ci.pem /root/ci.key")?
                .succeeded()?;
            // Each would have the ports.
            machine
                .shell("systemctl disable --now caddy; systemctl restart nginx")?
                .succeeded()?;
            Ok(machine)
        },
    )
}

fn call(machine: &Machine, words: &[&str]) -> anyhow::Result<Output> {
    machine.run_within(LATER, &[&["buildbot-conda", "web"], words].concat())
}

const EXPOSE: [&str; 12] = [
    "expose",
    "master",
    "--host",
    "ci.example.org",
    "--certificate",
    "/root/ci.pem",
    "--key",
    "/root/ci.key",
    "--admin",
    "alice",
    "--password-file",
    "/root/password",
];

fn request_all(machine: &Machine) -> anyhow::Result<Vec<String>> {
    let output = machine
        .run_within(LATER, &["sh", "-c", REQUESTS])?
        .succeeded()?;
    Ok(output.stdout.lines().map(str::to_owned).collect())
}

/// What of `lines` is not as `wanted`, which has a word and statuses for `page rest ws sse force`.
#[track_caller]
fn ensure_all(lines: &[String], who: &str, wanted: &str) -> Outcome {
    let kinds = ["page", "rest", "ws", "sse", "force"];
    for (kind, status) in kinds.iter().zip(wanted.split(' ')) {
        let line = format!("{who} {kind} {status}");
        ensure!(lines.contains(&line), "no `{line}` in {lines:#?}");
    }
    Ok(())
}

/// What is of the master and of the web servers.
const LISTING: &str =
    "cat /home/bb/master/master.cfg; ls -A /etc/nginx/sites-* /etc/caddy /home/bb/master";

fn pages_are_shown_to_others_with_a_login_and_hidden_again(release: Release) -> Outcome {
    let machine = Machine::boot(layers(release)?)?;
    machine.write_file("/root/password", "wonderland\n", "0600", "root")?;
    machine
        .run_within(LATER, &["buildbot-conda", "create", "master"])?
        .succeeded()?;
    let before = machine.shell(LISTING)?;
    a_port_that_is_taken_leaves_nothing(&machine, &before)?;
    nothing_is_shown_of_a_master_that_does_not_use_it(&machine, &before)?;

    let process = machine.unit_property(MASTER_UNIT, "MainPID")?;
    call(&machine, &EXPOSE)?.succeeded()?;
    ensure_open(&machine)?;
    let again = call(&machine, &EXPOSE)?.succeeded()?;
    ensure!(again.stderr.contains("nothing to do"), "{again}");
    call(&machine, &[&EXPOSE[..], &["--private"]].concat())?.succeeded()?;
    ensure_closed(&machine)?;
    let restarts = machine.unit_property(MASTER_UNIT, "MainPID")?;
    ensure!(restarts == process, "none of that was a restart");
    secrets_are_for_nobody(&machine)?;
    what_is_away_is_told(&machine)?;

    // The starter's own login counts again.
    call(&machine, &["hide", "master"])?.succeeded()?;
    let left = machine.shell(LISTING)?;
    ensure!(names(&before) == names(&left), "{before} {left}");
    ensure!(
        Rest::new(&machine).get("masters").is_ok(),
        "this machine reads again"
    );
    let again = call(&machine, &["hide", "master"])?.succeeded()?;
    ensure!(again.stderr.contains("nothing to do"), "{again}");

    by_caddy(&machine)
}

/// Another program has the port.
fn a_port_that_is_taken_leaves_nothing(machine: &Machine, before: &Output) -> Outcome {
    machine.shell(
        "systemd-run --quiet --unit taken openssl s_server -www -accept 443 -cert /root/ci.pem -key /root/ci.key; sleep 1",
    )?;
    let taken = call(machine, &EXPOSE)?;
    ensure!(
        taken.status == 1 && taken.stderr.contains("all changes were rolled back"),
        "{taken}"
    );
    machine.run(&["systemctl", "stop", "taken"])?.succeeded()?;
    let after = machine.shell(LISTING)?;
    ensure!(names(before) == names(&after), "{before} {after}");
    let page = machine.shell("curl -s http://127.0.0.1:8010/")?;
    ensure!(!page.stdout.contains("ci.example.org"), "{page}");
    Ok(())
}

/// A configuration that only mentions the file, and a key that another account can replace.
fn nothing_is_shown_of_a_master_that_does_not_use_it(
    machine: &Machine,
    before: &Output,
) -> Outcome {
    let name = |from: &str, to: &str| {
        let script = format!("sed -i 's/\"{from}\"/\"{to}\"/' /home/bb/master/master.cfg");
        machine.shell(&script)?.succeeded()
    };
    name("web.toml", "no.toml")?;
    let unused = call(machine, &EXPOSE)?;
    ensure!(
        unused.status == 1
            && unused
                .stderr
                .contains("do not say that they are https://ci.example.org/")
            && unused.stderr.contains("all changes were rolled back")
            && unused.stderr.contains("`buildbot-conda web lines` prints"),
        "{unused}"
    );
    name("no.toml", "web.toml")?;
    let after = machine.shell(LISTING)?;
    ensure!(names(before) == names(&after), "{before} {after}");
    machine
        .shell("install -o bb -m 0600 /root/ci.key /home/bb/ci.key")?
        .succeeded()?;
    let words = [&EXPOSE[..7], &["/home/bb/ci.key"], &EXPOSE[8..]].concat();
    let foreign = call(machine, &words)?;
    ensure!(
        foreign.status == 1
            && foreign
                .stderr
                .contains("goes through `/home/bb`, which is owned by"),
        "{foreign}"
    );
    machine.shell("rm /home/bb/ci.key")?.succeeded()?;
    Ok(())
}

/// Everyone can read, and those who log in can control.
fn ensure_open(machine: &Machine) -> Outcome {
    let lines = request_all(machine)?;
    ensure_all(&lines, "stranger", "200 200 101 200 403")?;
    ensure_all(&lines, "forger", "200 200 101 200 403")?;
    ensure_all(&lines, "alice", "200 200 101 200 200")?;
    for line in [
        "hook 400",
        "wrong 401",
        "robots 200 1",
        "crawler 403",
        "huge 400",
        "login 302",
        "logout 302",
    ] {
        ensure!(
            lines.iter().any(|one| one == line),
            "no `{line}` in {lines:#?}"
        );
    }
    Ok(())
}

/// Who logs in reads and controls, by the master's own port neither anybody else. What a hook proves is its own business.
fn ensure_closed(machine: &Machine) -> Outcome {
    let lines = request_all(machine)?;
    for who in ["stranger", "forger", "again"] {
        ensure_all(&lines, who, "403 403 403 403 403")?;
    }
    ensure_all(&lines, "alice", "200 200 101 200 200")?;
    ensure!(lines.iter().any(|line| line == "hook 400"), "{lines:#?}");
    let beside = machine
        .shell("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8010/api/v2/masters")?;
    ensure!(
        beside.text() == "403",
        "the master's own port is closed too: {beside}"
    );
    Ok(())
}

/// Neither secret nor password is where others read.
fn secrets_are_for_nobody(machine: &Machine) -> Outcome {
    let secret = machine.read_file("/home/bb/master/web.secret")?;
    let script = format!(
        "find / -xdev -perm -004 -type f -newer /etc/hostname -exec grep -lF {0} {{}} + 2>/dev/null || true; \
         find / -xdev -perm -004 -type f -newer /etc/hostname -exec grep -lF '$2y$' {{}} + 2>/dev/null || true; \
         journalctl --quiet --grep {0} || true; runuser -u nobody -- cat /etc/buildbot-conda/web/master.htpasswd || true",
        secret.trim()
    );
    let found = machine.run_within(LATER, &["sh", "-c", &script])?;
    ensure!(found.stdout.is_empty(), "{found}");
    Ok(())
}

/// For a stopped master, a page explains this, and reloads itself; doctor reports the rest.
fn what_is_away_is_told(machine: &Machine) -> Outcome {
    machine
        .run(&["systemctl", "stop", MASTER_UNIT])?
        .succeeded()?;
    let down = machine.shell(
        "curl -s --cacert /root/ci.pem --resolve ci.example.org:443:127.0.0.1 -D - https://ci.example.org/",
    )?;
    for part in ["HTTP/1.1 503", "Retry-After: 3", "http-equiv=refresh"] {
        ensure!(down.stdout.contains(part), "{down}");
    }
    machine
        .run(&["systemctl", "start", MASTER_UNIT])?
        .succeeded()?;
    let doctor = || {
        machine.run_within(
            LATER,
            &["buildbot-conda", "doctor", "--only", "front", "--all"],
        )
    };
    let good = doctor()?;
    ensure!(
        good.stdout
            .contains("nginx serves https://ci.example.org/ from port 8010"),
        "{good}"
    );
    machine.run(&["systemctl", "stop", "nginx"])?.succeeded()?;
    let stopped = doctor()?;
    ensure!(
        stopped.status == 1 && stopped.stdout.contains("systemctl start nginx.service"),
        "{stopped}"
    );
    machine.run(&["systemctl", "start", "nginx"])?.succeeded()?;
    machine.shell("sed -i 's/\"web_port\":8010/\"web_port\":8011/' /var/lib/buildbot-conda/created/master.web")?;
    let moved = doctor()?;
    ensure!(
        moved.stdout.contains("expects the pages at port 8011"),
        "{moved}"
    );
    machine.shell("sed -i 's/8011/8010/' /var/lib/buildbot-conda/created/master.web")?;
    Ok(())
}

/// The same by Caddy.
fn by_caddy(machine: &Machine) -> Outcome {
    machine
        .shell("systemctl disable --now nginx; systemctl enable --now caddy")?
        .succeeded()?;
    let files = [
        "--certificate",
        "/etc/caddy/ci.pem",
        "--key",
        "/etc/caddy/ci.key",
    ];
    let words = [&EXPOSE[..4], &files, &EXPOSE[8..], &["--front", "caddy"]].concat();
    call(machine, &words)?.succeeded()?;
    ensure_open(machine)?;
    call(machine, &[&words[..], &["--private"]].concat())?.succeeded()?;
    ensure_closed(machine)?;
    call(machine, &["hide", "master"])?.succeeded()?;
    let left =
        machine.shell("ls -A /home/bb/master /etc/caddy/buildbot-conda /etc/buildbot-conda/web")?;
    ensure!(
        !left.stdout.contains("web.") && !left.stdout.contains(".caddy"),
        "{left}"
    );
    let caddyfile = machine.read_file("/etc/caddy/Caddyfile")?;
    ensure!(!caddyfile.contains("buildbot-conda"), "{caddyfile}");
    Ok(())
}

/// The names of files in a listing, and the lines of a text.
fn names(output: &Output) -> Vec<&str> {
    let names = output
        .stdout
        .lines()
        .filter_map(|line| line.split(' ').next_back());
    names
        .filter(|name| !name.contains(".log") && !name.contains("state.sqlite"))
        .collect()
}
