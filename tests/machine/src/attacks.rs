//! The attack table: what an attacker with an account on the host, or with control over a build, may try, and the
//! guarantee.
//!
//! A row is confirmed on booted machines with [`crate::attack`], or by the cheapest test that can detect a violation,
//! which the row names.

use crate::table::{Row, Shown, Table};

pub(crate) const ATTACKS: Table = Table {
    name: "attack",
    page: (
        "attacks.md",
        "This table lists what an attacker with an account on the host, or with control over a build, may try, what\n\
         protects against it, and the test that confirms this. Rows without a test's name are confirmed on a booted\n\
         Debian, with a real Buildbot.",
    ),
    headings: ["attack", "guarantee"],
    rows: ROWS,
};

/// A row that machines show.
const fn on_machines(id: &'static str, attack: &'static str, holds: &'static str) -> Row {
    Row {
        id,
        event: attack,
        promise: holds,
        shown: Shown::OnMachines,
    }
}

/// A row that `test`, a function in `file`, shows.
const fn by_test(
    id: &'static str,
    attack: &'static str,
    holds: &'static str,
    [file, test]: [&'static str; 2],
) -> Row {
    Row {
        id,
        event: attack,
        promise: holds,
        shown: Shown::ByTest { file, test },
    }
}

const ROWS: &[Row] = &[
    on_machines(
        "traps-in-what-the-user-owns",
        "interpreter, environment, `buildbot.tac`, `master.cfg` and programs in directories of the service user are replaced by traps",
        "root executes none of them, whichever command or package operation runs",
    ),
    on_machines(
        "links-in-state-and-logs",
        "state directory, `status.json` and logs are links to files of root, or a pipe",
        "root follows no link, does not wait, and shows nothing from these files",
    ),
    on_machines(
        "starter-without-login",
        "another user of the machine forces or stops builds, or controls workers, on the pages of a new master",
        "everyone can read; control needs the password that was shown once",
    ),
    on_machines(
        "posing-as-the-master",
        "while a new master restarts, another account listens at the place where its workers log in, to send them commands",
        "only the account of the master can create anything there",
    ),
    on_machines(
        "terminal-of-root-under-systemd",
        "a command of the service user opens root's terminal, to type into it (TIOCSTI), with systemd running",
        "it runs in a separate unit: it has no terminal and no descriptor, and cannot open another terminal of the machine",
    ),
    on_machines(
        "stopped-command-under-systemd",
        "the service user stops (SIGSTOP) the process that root waits for, with systemd running",
        "`^C` and TERM terminate root's command, and no process of the user remains",
    ),
    by_test(
        "passwords-of-other-workers",
        "a worker logs in under the name of another worker of the same master, whose password it may be able to read",
        "each worker of a new master has its own account and its own password",
        [
            "crates/cli/src/create/decision/tests.rs",
            "beside_a_master_each_worker_has_an_account_and_a_password_of_its_own",
        ],
    ),
    by_test(
        "port-taken",
        "another account uses a port of a master, which then cannot start",
        "the message names the account that uses the port",
        [
            "crates/launcher/runner_tests/test_failures.py",
            "test_port_of_another_account_is_named_with_the_account",
        ],
    ),
    by_test(
        "configuration-others-can-write",
        "the configuration, or a directory above it, can be written by accounts other than root",
        "generator, launcher and commands refuse it",
        [
            "crates/generator/tests/generator/bad_files.rs",
            "a_configuration_that_others_can_write_is_not_believed",
        ],
    ),
    by_test(
        "configuration-through-a-link",
        "the configuration is a link through a directory of a user, who then writes `user = \"root\"`",
        "generator, launcher and commands refuse it: every directory in the path of a link counts",
        [
            "crates/generator/tests/generator/bad_files.rs",
            "a_configuration_through_a_directory_of_others_is_not_believed",
        ],
    ),
    by_test(
        "credential-replaced-by-a-link",
        "a credential in a directory of a user is replaced by a link to a file that only root can read",
        "the instance gets no drop-in and does not start; `check` and `doctor` name the credential and the directory",
        [
            "crates/generator/tests/generator/bad_files.rs",
            "an_instance_with_a_credential_in_a_place_of_others_gets_no_drop_in",
        ],
    ),
    by_test(
        "reader-goes-away",
        "standard output or standard error of a command is closed while it runs: a pipe to `head`, a lost connection",
        "the command completes with its usual exit status",
        [
            "crates/cli/tests/it/env.rs",
            "a_reader_that_went_away_keeps_no_verb_from_its_end",
        ],
    ),
    by_test(
        "program-in-front-on-path",
        "root's `PATH` starts with a directory that contains another `systemctl`, such as that of a Conda environment",
        "root runs the programs of the system",
        [
            "crates/cli/tests/it/search_path.rs",
            "root_finds_no_program_in_front_of_the_systems",
        ],
    ),
    by_test(
        "file-of-root-renamed",
        "the user moves a file of root, or a hard link to one, into the directory of the instance before `doctor --fix`",
        "its owner does not change: only files that everyone can read and that have a single name are given away, through an open descriptor",
        [
            "crates/cli/src/service/own.rs",
            "only_what_he_could_read_anyway_is_given_to_the_user",
        ],
    ),
    by_test(
        "directory-of-a-third-user",
        "`create --directory` names a directory of a third user, or one below it",
        "refused: that user could put another `buildbot.tac` there, which would run as the account",
        [
            "crates/cli/src/system/own_place.rs",
            "nobody_else_may_own_or_write_a_directory_on_the_way",
        ],
    ),
    by_test(
        "terminal-of-root",
        "a command of the service user opens root's terminal, or a descriptor that root's shell has left open, without systemd",
        "it has its own session and only three descriptors: no terminal, and nothing that belongs to root",
        [
            "tests/package/tests/service_user.rs",
            "commands_have_no_terminal_and_no_descriptor_of_roots",
        ],
    ),
    by_test(
        "stopped-command",
        "the service user stops (SIGSTOP) the process that root waits for, and has started others in separate sessions",
        "`^C`, TERM and HUP terminate root's command at once, and no process of the user remains",
        [
            "tests/package/tests/service_user.rs",
            "a_stopped_command_is_ended_by_a_signal_with_all_that_it_has_started",
        ],
    ),
    by_test(
        "endless-output",
        "a process of the service user prints without end into a pipe that root reads",
        "it is terminated after 8 MiB, and root's memory does not grow",
        [
            "tests/package/tests/service_user.rs",
            "a_command_that_prints_without_end_is_ended",
        ],
    ),
    by_test(
        "terminal-of-run",
        "`run` by root has its input redirected, and the command reads what root types next",
        "each stream that is a terminal is replaced by a separate terminal; others are passed on unchanged",
        [
            "tests/package/tests/service_user.rs",
            "what_root_runs_on_a_terminal_has_another_one",
        ],
    ),
    by_test(
        "activation-scripts-of-others",
        "`run --conda-root` by root names a Conda installation with `activate.d` scripts of another account",
        "the command runs as the owner of that installation; if only a part belongs to another account, it is refused",
        [
            "tests/package/tests/service_user.rs",
            "roots_run_enters_no_environment_of_others",
        ],
    ),
    by_test(
        "root-directory-of-others",
        "root calls a command with `--root` and a tree in which others can write, so that root acts as the service user",
        "root runs nothing from an environment or a directory in which others can write",
        [
            "crates/cli/src/system/activation.rs",
            "root_runs_nothing_that_others_can_write_whatever_plays_the_service_user",
        ],
    ),
    by_test(
        "restore-through-a-link",
        "the path of a backup that root restores leads to `/etc/shadow` through a link in a directory of the service user",
        "root opens nothing that the user could have chosen, and passes on only what starts like a backup",
        [
            "tests/package/tests/service_user.rs",
            "restore_opens_nothing_that_the_service_user_has_chosen",
        ],
    ),
    by_test(
        "python-of-a-package",
        "the Python of a package, or a program in its place, is run to compile modules",
        "it has no privileges, no network and no terminal, and cannot change any file",
        [
            "crates/env/src/compile.rs",
            "whoever_compiles_has_no_rights_no_network_and_no_terminal",
        ],
    ),
    by_test(
        "python-that-does-not-end",
        "the same program does not finish, forks, or returns something other than bytecode",
        "it is terminated together with everything that it has started, and nothing is created",
        [
            "crates/env/src/compile.rs",
            "what_does_not_end_is_ended_with_all_it_has_left",
        ],
    ),
    by_test(
        "bytecode-of-other-environments",
        "a package contains files that the interpreter would load, to change modules of other environments",
        "the interpreter runs from its own package only",
        [
            "crates/env/tests/bytecode.rs",
            "no_other_package_has_a_say_in_the_bytecode_that_is_kept",
        ],
    ),
    by_test(
        "archive-that-fills-the-disk",
        "a small archive expands to gigabytes or to thousands of files",
        "it is refused before anything is written to disk",
        [
            "crates/env/tests/generations.rs",
            "an_archive_that_becomes_too_much_is_refused_before_it_is_on_disk",
        ],
    ),
    by_test(
        "forged-record",
        "the record of a package contains a line break or control sequences in its address",
        "no lock contains it, and no listing prints it unchanged",
        [
            "crates/cli/tests/it/env.rs",
            "records_that_somebody_else_has_written_steer_no_terminal_and_are_in_no_lock",
        ],
    ),
    by_test(
        "status-that-steers-a-terminal",
        "`status.json` contains escape sequences and characters that change the direction of text",
        "no command prints them unchanged",
        [
            "crates/cli/src/system/status_file.rs",
            "nothing_in_it_steers_a_terminal",
        ],
    ),
    by_test(
        "journal-that-steers-a-terminal",
        "a build writes characters that hide text or change its direction to the journal, which root reads with `logs`",
        "they are shown as escapes, and only the colours of `journalctl` are kept",
        [
            "crates/cli/src/logs.rs",
            "colors_stay_and_nothing_else_is_obeyed",
        ],
    ),
    by_test(
        "key-of-the-web-server",
        "the account of a master writes directives of nginx into `web.secret`, which `web expose` copies into the site file",
        "only letters and digits are copied; anything else is replaced by a new key",
        [
            "crates/cli/tests/it/web.rs",
            "a_key_that_the_masters_account_has_written_is_in_no_site_file_unless_it_is_a_plain_one",
        ],
    ),
    by_test(
        "certificate-of-others",
        "the certificate or key for `web expose` is in a directory of a user, who replaces it by a link",
        "refused, with the directory",
        [
            "crates/cli/src/web/expose.rs",
            "a_certificate_in_a_place_of_others_is_refused",
        ],
    ),
    by_test(
        "endless-answer",
        "a master, or whoever has its port, or a host that a worker joins, answers slowly or without end",
        "the whole answer has a time limit and a size limit, and `^C` aborts it",
        [
            "crates/cli/src/system/requests.rs",
            "an_answer_that_does_not_end_is_given_up",
        ],
    ),
    by_test(
        "endless-backup",
        "the account of a master hands over a backup that grows while root copies it with `backup --to`",
        "root copies only as many bytes as the file had, for which space was available",
        [
            "crates/cli/src/backup.rs",
            "a_copy_is_as_long_as_the_file_said_that_it_is",
        ],
    ),
    by_test(
        "links-beside-a-status",
        "files of the runner that root reads as data, such as `attached.json`, are links, pipes or too large",
        "they are treated as missing",
        [
            "crates/cli/src/system/foreign_file.rs",
            "links_pipes_and_what_is_too_large_are_not_read",
        ],
    ),
    by_test(
        "links-in-a-profile",
        "a file of a profile in a person's directory is a link to a file that only root can read",
        "`host` follows no link in a profile",
        [
            "crates/cli/tests/it/host.rs",
            "no_file_of_a_profile_is_read_through_a_link",
        ],
    ),
    by_test(
        "foreign-lock",
        "another account opens a lock file and holds its lock",
        "only its owner can open a lock file; one that others can open is replaced",
        [
            "crates/host/src/lock.rs",
            "a_lock_that_others_can_open_and_hold_has_no_effect",
        ],
    ),
    by_test(
        "token-in-a-private-script",
        "a script that `adopt` reads contains a token that not everyone may read",
        "it is stored in a file that only root can read, or is refused with its location",
        [
            "crates/cli/tests/it/adopt.rs",
            "what_may_be_secret_does_not_become_readable",
        ],
    ),
];
