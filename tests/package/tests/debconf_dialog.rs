//! The questions on a terminal: debconf's Dialog front end, which people see, is driven by keys, and the plain ones meet
//! the end of their input.

use buildbot_conda_package_tests::terminal::{DOWN, ENTER, ESCAPE, SPACE, TAB, Terminal};
use buildbot_conda_package_tests::{DebianRoot, Release, on_each_release};

const CONFIGURATION: &str = "/etc/buildbot-conda/config.toml";
const LINKS: &str = "/etc/systemd/system/multi-user.target.wants";

/// The requirements of the Dialog front end, of questions before unpacking, and of debconf in other languages.
const PROGRAMS: [&str; 3] = ["whiptail", "apt-utils", "debconf-i18n"];

const PATH: &str = "Directory of the Conda installation:";
const ENVIRONMENT: &str = "Conda environment that contains Buildbot:";
const SERVICES: &str = "Services to start at boot:";
const USER: &str = "Account that runs Buildbot:";
const MASTER: &str = "Directory of the Buildbot master:";
const WORKER: &str = "Directory of the Buildbot worker:";

on_each_release! {
    apt_asks_one_question_before_it_unpacks,
    a_wrong_answer_given_before_the_package_is_unpacked_is_asked_for_again,
    a_program_of_an_earlier_version_asks_nothing_before_it_is_replaced,
    every_question_is_asked_in_order_and_its_answer_acted_on,
    going_back_leads_to_the_question_before,
    a_wrong_answer_is_explained_and_asked_for_again,
    an_answer_given_on_an_upgrade_survives_until_postinst,
    a_terminal_that_goes_away_ends_the_questions,
    input_that_ends_changes_nothing,
    german_french_and_spanish_are_spoken,
}

/// Go on with what the question offers.
fn accept(terminal: &mut Terminal, question: &str) {
    terminal.wait_for(question);
    terminal.press(TAB);
    terminal.press(ENTER);
}

/// Replace what the question offers.
fn answer(terminal: &mut Terminal, question: &str, old: &str, new: &str) {
    terminal.wait_for(question);
    terminal.replace(old, new);
    accept(terminal, question);
}

fn apt_asks_one_question_before_it_unpacks(release: Release) {
    let root = DebianRoot::with_programs(release, &PROGRAMS);
    let mut terminal = Terminal::run(&root, "apt-get install --yes /buildbot-conda.deb");
    answer(&mut terminal, PATH, "/home/bb/anaconda3", "/opt/conda");
    terminal.wait_for("Setting up buildbot-conda");
    assert_eq!(terminal.finish(), 0);
    let text = root.text(CONFIGURATION);
    assert!(text.contains("\nconda-root = \"/opt/conda\" "), "{text}");
    assert_eq!(
        text.replace("/opt/conda", "/home/bb/anaconda3"),
        root.text("/usr/share/buildbot-conda/config.toml")
    );
}

fn a_wrong_answer_given_before_the_package_is_unpacked_is_asked_for_again(release: Release) {
    let root = DebianRoot::with_programs(release, &PROGRAMS);
    let mut terminal = Terminal::run(&root, "apt-get install --yes /buildbot-conda.deb");
    answer(&mut terminal, PATH, "/home/bb/anaconda3", "relative");
    terminal.wait_for("Setting up buildbot-conda");
    terminal.wait_for("Not a usable path");
    terminal.press(ENTER);
    answer(&mut terminal, PATH, "relative", "/opt/conda");
    assert_eq!(terminal.finish(), 0);
    assert!(
        root.text(CONFIGURATION)
            .contains("\nconda-root = \"/opt/conda\" ")
    );
}

/// It knows neither what is in force nor what can be used.
fn a_program_of_an_earlier_version_asks_nothing_before_it_is_replaced(release: Release) {
    let root = DebianRoot::installed_with_programs(release, &PROGRAMS);
    root.must(
        "sed -i 's/anaconda3/mine/' /etc/buildbot-conda/config.toml
         echo PURGE | debconf-communicate buildbot-conda
         mv /usr/bin/buildbot-conda /root/kept
         printf '#!/bin/sh\\necho error: unrecognized subcommand >&2; exit 2\\n' >/usr/bin/buildbot-conda
         chmod +x /usr/bin/buildbot-conda",
    );
    let mut terminal = Terminal::run(
        &root,
        "dpkg-preconfigure /buildbot-conda.deb; echo nothing asked",
    );
    terminal.wait_for("nothing asked");
    assert_eq!(terminal.finish(), 0);
    let mut terminal = Terminal::run(&root, "dpkg --install /buildbot-conda.deb");
    answer(&mut terminal, PATH, "/home/bb/mine", "/opt/conda");
    assert_eq!(terminal.finish(), 0);
    assert!(
        root.text(CONFIGURATION)
            .contains("\nconda-root = \"/opt/conda\" ")
    );
}

fn every_question_is_asked_in_order_and_its_answer_acted_on(release: Release) {
    let root = DebianRoot::installed_with_programs(release, &PROGRAMS);
    root.must("sed -i 's/^conda-root.*/conda-root = \"\\/opt\\/conda\"   # mine/' /etc/buildbot-conda/config.toml");
    let mut terminal = Terminal::run(&root, "dpkg-reconfigure --priority=low buildbot-conda");
    answer(&mut terminal, PATH, "/opt/conda", "/opt/mini  forge");
    answer(&mut terminal, ENVIRONMENT, "buildbot", "ci");
    terminal.wait_for(SERVICES);
    terminal.wait_for("[*] Buildbot master");
    terminal.wait_for("[*] Buildbot worker");
    terminal.press(DOWN);
    terminal.press(SPACE);
    terminal.wait_for("[ ] Buildbot worker");
    accept(&mut terminal, SERVICES);
    answer(&mut terminal, USER, "bb", "ci-runner");
    answer(&mut terminal, MASTER, "/home/bb/master", "/srv/master");
    accept(&mut terminal, WORKER);
    assert_eq!(terminal.finish(), 0);

    let text = root.text(CONFIGURATION);
    for line in [
        "conda-root = \"/opt/mini  forge\"   # mine\n",
        "conda-env = \"ci\" ",
        "user = \"ci-runner\" ",
        "directory = \"/srv/master\"\n",
        "directory = \"/home/bb/worker\"\n",
    ] {
        assert!(text.contains(&format!("\n{line}")), "{line}\n{text}");
    }
    assert!(root.has(&format!("{LINKS}/buildbot-master.service")));
    assert!(!root.has(&format!("{LINKS}/buildbot-worker.service")));
    let account = root.must("getent passwd ci-runner");
    assert!(
        account.ends_with(":/home/ci-runner:/bin/bash\n"),
        "{account}"
    );
    // Nothing waits to be acted on any more.
    assert!(
        !root
            .text("/var/cache/debconf/config.dat")
            .contains("answered")
    );
}

fn going_back_leads_to_the_question_before(release: Release) {
    let root = DebianRoot::installed_with_programs(release, &PROGRAMS);
    let mut terminal = Terminal::run(&root, "dpkg-reconfigure --priority=low buildbot-conda");
    answer(&mut terminal, PATH, "/home/bb/anaconda3", "/opt/first");
    accept(&mut terminal, ENVIRONMENT);
    terminal.wait_for(SERVICES);
    // With the button, then with the key.
    terminal.press(TAB);
    terminal.press(TAB);
    terminal.press(ENTER);
    terminal.wait_for(ENVIRONMENT);
    terminal.press(ESCAPE);
    terminal.wait_for(PATH);
    terminal.wait_for("/opt/first");
    answer(&mut terminal, PATH, "/opt/first", "/opt/second");
    accept(&mut terminal, ENVIRONMENT);
    accept(&mut terminal, SERVICES);
    accept(&mut terminal, USER);
    // Back across all of them, and off the first one: the answers so far are kept.
    for (question, before) in [
        (MASTER, USER),
        (USER, SERVICES),
        (SERVICES, ENVIRONMENT),
        (ENVIRONMENT, PATH),
    ] {
        terminal.wait_for(question);
        terminal.press(ESCAPE);
        terminal.wait_for(before);
    }
    terminal.press(ESCAPE);
    assert_eq!(terminal.finish(), 0);
    let text = root.text(CONFIGURATION);
    assert!(text.contains("\nconda-root = \"/opt/second\" "), "{text}");

    // A question that is not shown is passed over on the way back as well.
    root.must(
        "printf '%s\\n' 'FSET buildbot-conda/conda-path seen false' 'FSET buildbot-conda/conda-env seen true' \
         'FSET buildbot-conda/services seen false' | debconf-communicate buildbot-conda",
    );
    let mut terminal = Terminal::run(
        &root,
        "dpkg-reconfigure --unseen-only --priority=medium buildbot-conda",
    );
    accept(&mut terminal, PATH);
    terminal.wait_for(SERVICES);
    terminal.press(ESCAPE);
    accept(&mut terminal, PATH);
    accept(&mut terminal, SERVICES);
    assert_eq!(terminal.finish(), 0);
}

fn a_wrong_answer_is_explained_and_asked_for_again(release: Release) {
    let root = DebianRoot::installed_with_programs(release, &PROGRAMS);
    let mut terminal = Terminal::run(&root, "dpkg-reconfigure --priority=low buildbot-conda");
    for (question, offered, wrong, complaint) in [
        (
            PATH,
            "/home/bb/anaconda3",
            &["relative", "/opt/a:b", "/opt/../etc", "/"][..],
            "Not a usable path",
        ),
        (
            ENVIRONMENT,
            "buildbot",
            &["-x", "a/b", "..", "~bb"],
            "Not a usable environment",
        ),
        (SERVICES, "", &[], ""),
        (
            USER,
            "bb",
            &["0", "a b", "-x", "x;id"],
            "Not a usable account name",
        ),
        (MASTER, "/home/bb/master", &["m"], "Not a usable directory"),
        (
            WORKER,
            "/home/bb/worker",
            &["/home/bb/master"],
            "Not a usable directory",
        ),
    ] {
        let mut present = offered;
        for text in wrong {
            answer(&mut terminal, question, present, text);
            terminal.wait_for(complaint);
            terminal.press(ENTER);
            present = text;
        }
        answer(&mut terminal, question, present, offered);
    }
    assert_eq!(terminal.finish(), 0);
    assert_eq!(
        root.text(CONFIGURATION),
        root.text("/usr/share/buildbot-conda/config.toml")
    );
}

fn an_answer_given_on_an_upgrade_survives_until_postinst(release: Release) {
    let root = DebianRoot::installed_with_programs(release, &PROGRAMS);
    // As if this version were the first that asks.
    root.must("echo PURGE | debconf-communicate buildbot-conda");
    let mut terminal = Terminal::run(
        &root,
        "dpkg-preconfigure --priority=low /buildbot-conda.deb",
    );
    answer(&mut terminal, PATH, "/home/bb/anaconda3", "/opt/conda");
    accept(&mut terminal, ENVIRONMENT);
    terminal.wait_for(SERVICES);
    terminal.wait_for("[*] Buildbot master");
    terminal.press(SPACE);
    terminal.wait_for("[ ] Buildbot master");
    accept(&mut terminal, SERVICES);
    accept(&mut terminal, USER);
    accept(&mut terminal, MASTER);
    accept(&mut terminal, WORKER);
    assert_eq!(terminal.finish(), 0);
    assert!(root.text(CONFIGURATION).contains("\"/home/bb/anaconda3\""));
    root.must("dpkg --install /buildbot-conda.deb");
    assert!(root.text(CONFIGURATION).contains("\"/opt/conda\""));
    assert!(!root.has(&format!("{LINKS}/buildbot-master.service")));
    assert!(root.has(&format!("{LINKS}/buildbot-worker.service")));
}

fn a_terminal_that_goes_away_ends_the_questions(release: Release) {
    let root = DebianRoot::installed_with_programs(release, &PROGRAMS);
    root.must("sed -i 's/anaconda3/mine/' /etc/buildbot-conda/config.toml");
    let before = root.text(CONFIGURATION);
    for guard in ["", "trap '' HUP\n"] {
        let mut terminal = Terminal::run(
            &root,
            &format!("{guard}dpkg-reconfigure --priority=low buildbot-conda"),
        );
        accept(&mut terminal, PATH);
        terminal.wait_for(ENVIRONMENT);
        terminal.hang_up();
        assert_eq!(root.text(CONFIGURATION), before);
    }
    assert!(root.has(&format!("{LINKS}/buildbot-master.service")));
    assert!(root.has(&format!("{LINKS}/buildbot-worker.service")));
}

fn input_that_ends_changes_nothing(release: Release) {
    let root = DebianRoot::installed_with_programs(release, &PROGRAMS);
    root.must("sed -i 's/anaconda3/mine/; s/\"buildbot\"/\"ci\"/; s/^user = \"bb\"/user = \"root\"/' /etc/buildbot-conda/config.toml");
    root.must("systemctl disable buildbot-worker.service");
    let before = root.text(CONFIGURATION);
    for front_end in ["teletype", "readline", "noninteractive"] {
        root.must(&format!(
            "DEBIAN_FRONTEND={front_end} dpkg-reconfigure --priority=low buildbot-conda </dev/null"
        ));
        assert_eq!(root.text(CONFIGURATION), before, "{front_end}");
        assert!(root.has(&format!("{LINKS}/buildbot-master.service")));
        assert!(!root.has(&format!("{LINKS}/buildbot-worker.service")));
        assert_eq!(root.answer("conda-path"), "/home/bb/mine");
        assert_eq!(root.answer("services"), "master");
    }
}

fn german_french_and_spanish_are_spoken(release: Release) {
    let root = DebianRoot::installed_with_programs(release, &PROGRAMS);
    for (language, path, complaint, environment, services, worker) in [
        (
            "de",
            "Verzeichnis der Conda-Installation:",
            "Kein verwendbarer Pfad",
            "Conda-Umgebung, die Buildbot enthält:",
            "Dienste, die beim Systemstart gestartet werden:",
            "Buildbot-Worker",
        ),
        (
            "fr",
            "Répertoire de l'installation de Conda :",
            "Chemin non utilisable",
            "Environnement Conda contenant Buildbot :",
            "Services à lancer au démarrage :",
            "Exécutant Buildbot (worker)",
        ),
        (
            "es",
            "Directorio de la instalación de Conda:",
            "Ruta no válida",
            "Entorno de Conda que contiene Buildbot:",
            "Servicios que se inician al arrancar:",
            "Agente de Buildbot (worker)",
        ),
    ] {
        let mut terminal = Terminal::run(
            &root,
            &format!("LANGUAGE={language} dpkg-reconfigure --priority=medium buildbot-conda"),
        );
        answer(&mut terminal, path, "/home/bb/anaconda3", "x");
        terminal.wait_for(complaint);
        terminal.press(ENTER);
        answer(&mut terminal, path, "x", "/home/bb/anaconda3");
        accept(&mut terminal, environment);
        terminal.wait_for(services);
        terminal.wait_for(&format!("[*] {worker}"));
        accept(&mut terminal, services);
        assert_eq!(terminal.finish(), 0);
        // What was shown is translated, what is kept is not.
        assert_eq!(root.answer("services"), "master, worker");
    }
}
