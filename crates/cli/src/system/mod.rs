//! Access to the host that all verbs share: nothing in here depends on a verb, a plan or a check.
//!
//! * `context`: the root directory of this invocation, and its configuration, which `configuration` checks and changes
//! * `accounts`: accounts and groups
//! * `as_user`: runs this program again as the service user; `children` supervises processes
//! * `interrupt`: signals that ask this program to stop; `terminal`: an interactive command of another account
//! * `activation`, `checkconfig`: programs of an instance's environment
//! * `systemd`: states of units and operations on them; `unit_files`: those of an administrator, `unit_settings` the
//!   rules that commands share with a unit
//! * `managed`: managed environments by their names; `credentials`: those of a process
//! * `journal`: the format of the journal
//! * `values`: modes, owners and identities, in steps and profiles
//! * `files`: files owned by root, written atomically
//! * `own_place`: where an account's own files may be; `search_path`: where root finds programs
//! * `record`: the record of `create`; `exposed`: that of `web expose`
//! * `front`: the web server in front of a master; `requests`: requests to it and to web hooks
//! * `buildbots`: the processes of units that are not ours
//! * `openssl`: certificates and TLS; `foreign_file`: files of a service user, as data
//! * `prompt`: secrets that a person types; `passwords`: generated ones
//! * `programs`: programs of the system that change it; `lanes`: the same work for several items at a time
//! * `main_process`, `status_file`, `draining`: the Buildbot of a unit, its reports, and how its builds finish before
//!   it stops

pub(crate) mod accounts;
pub(crate) mod activation;
pub(crate) mod as_user;
pub(crate) mod buildbots;
pub(crate) mod checkconfig;
pub(crate) mod children;
pub(crate) mod configuration;
pub(crate) mod context;
pub(crate) mod credentials;
pub(crate) mod draining;
pub(crate) mod exposed;
pub(crate) mod files;
pub(crate) mod foreign_file;
pub(crate) mod front;
pub(crate) mod installations;
pub(crate) mod instance_state;
pub(crate) mod interrupt;
pub(crate) mod journal;
pub(crate) mod lanes;
pub(crate) mod main_process;
pub(crate) mod managed;
pub(crate) mod openssl;
pub(crate) mod own_place;
pub(crate) mod passwords;
pub(crate) mod programs;
pub(crate) mod prompt;
pub(crate) mod record;
pub(crate) mod requests;
pub(crate) mod search_path;
pub(crate) mod secrets;
pub(crate) mod status_file;
pub(crate) mod systemd;
pub(crate) mod terminal;
pub(crate) mod unit_files;
pub(crate) mod unit_settings;
pub(crate) mod values;
