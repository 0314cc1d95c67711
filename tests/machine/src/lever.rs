//! Access to a running master: its reactor runs Python code from a test, for faults that come from inside.

use std::time::Duration;

use anyhow::Result;

use crate::{MASTER, Machine, Outcome, master_configuration};

/// From a request to the moment at which the reactor reads the code, on a busy machine.
const TAKEN: Duration = Duration::from_mins(1);

/// [`master_configuration`] with the lever.
pub fn lever_configuration() -> String {
    let more = format!(
        r#"
import os
from twisted.internet import reactor, task

def pull():
    if os.path.exists("{MASTER}/lever"):
        with open("{MASTER}/lever") as file:
            text = file.read()
        os.unlink("{MASTER}/lever")
        exec(compile(text, "lever", "exec"), {{}})

# Once for each process, though the configuration is read again, and that in a thread.
if not hasattr(reactor, "test_lever"):
    reactor.test_lever = task.LoopingCall(pull)
    reactor.callFromThread(lambda: reactor.test_lever.start(0.2))
"#
    );
    master_configuration() + &more
}

/// Runs `python` in the reactor of the master, and returns once it was read, before it has finished. After an
/// exception, the lever no longer exists.
///
/// # Errors
///
/// If it is not read.
pub fn pull_lever(machine: &Machine, python: &str) -> Outcome {
    let lever = format!("{MASTER}/lever");
    machine.write_file(&format!("{lever}.new"), python, "0600", "bb")?;
    machine
        .run(&["mv", &format!("{lever}.new"), &lever])?
        .succeeded()?;
    let taken = || -> Result<Option<()>> {
        Ok((machine.run(&["test", "-e", &lever])?.status == 1).then_some(()))
    };
    machine.wait_until("the master has taken the lever's text", TAKEN, taken)
}
