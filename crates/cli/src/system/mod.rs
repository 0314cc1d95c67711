//! What this program knows of the host and does to it, once for all verbs: nothing in here knows a verb, a plan or a
//! check.
//!
//! * `context`: the root directory of this invocation, and its configuration, which `configuration` checks and changes
//! * `accounts`: accounts and groups
//! * `as_user`: this program once more, as the service user; `children` follows what it runs
//! * `interrupt`: signals that ask this program to end; `terminal`: a command of somebody else in front of root
//! * `activation`, `checkconfig`: programs of an instance's environment
//! * `systemd`: what systemd says of units and does with them; `unit_files` are those of an administrator,
//!   `unit_settings` the rules that commands share with a unit
//! * `managed`: managed environments by their names; `credentials`: those that a process has
//! * `journal`: the text of the journal as it is shown
//! * `values`: modes, owners and identities, in steps and profiles
//! * `files`: files of root's, written whole or not at all
//! * `own_place`: where an account's own files may be; `search_path`: where root finds programs
//! * `record`: what `create` has noted; `exposed`: what `web expose` has
//! * `front`: the web server in front of a master; `requests`: what is asked of that, and of web hooks
//! * `buildbots`: the processes of units that are not ours
//! * `openssl`: certificates and TLS; `foreign_file`: what a service user has written, as data
//! * `prompt`: secrets that a person types; `passwords`: those that chance makes
//! * `programs`: programs of the system that change it; `lanes`: the same work for many at a time
//! * `main_process`, `status_file`, `draining`: the Buildbot of a unit, what it says, and how it ends with its builds

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
