//! Modules compiled by the environment's own Python, as many processes as there are processors. What becomes of the
//! bytecode is [`crate::bytecode`]'s business.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context as _, bail};

use crate::place::{Kind, Place};

/// What Python is told to do.
const PROGRAM: &str = include_str!("compile.py");
/// So many modules are worth the start of one more Python.
const WORTH: usize = 64;

/// One module to be compiled.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    pub(crate) source: PathBuf,
    /// Size of the source, in bytes.
    pub(crate) size: u64,
    /// The file to write, which is not there yet.
    pub(crate) target: PathBuf,
    /// The source below the prefix: what the bytecode calls it until an import puts the whole path in its place.
    pub(crate) name: String,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    /// The part of the names of bytecode files that the interpreter knows as its own, such as `cpython-311`.
    pub(crate) tag: String,
    /// For each module whether it has bytecode now; what is no valid Python has none.
    pub(crate) succeeded: Vec<bool>,
}

/// Compiles `modules` with the Python of an environment, none of whose own modules has bytecode yet: what the interpreter
/// has loaded must not depend on it.
///
/// # Errors
///
/// When Python does not come to its end.
pub(crate) fn compile(place: &Place, modules: &[Module]) -> anyhow::Result<Compiled> {
    let mut compiled = Compiled {
        tag: String::new(),
        succeeded: vec![false; modules.len()],
    };
    if modules.is_empty() {
        return Ok(compiled);
    }
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let shares = shares(modules, processors.min(modules.len().div_ceil(WORTH)));
    let python = place.building.join("bin/python");
    // PEP 552: hash-based, and whether that is checked.
    let flags = match place.kind {
        Kind::Generation => "1",
        Kind::Open => "3",
    };
    let told = || format!("run `{}`", python.display());
    let mut children = Vec::new();
    for share in &shares {
        let mut child = start(&python, flags).with_context(told)?;
        let mut input = child.stdin.take().context("write to Python")?;
        // When it ends early, its status says more than this.
        let _ = input.write_all(&fields(modules, share));
        children.push(child);
    }
    for (child, share) in children.into_iter().zip(&shares) {
        let output = child.wait_with_output().with_context(told)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.trim().lines().next_back().unwrap_or_default();
            bail!(
                "compile modules: `{}`: {} {last}",
                python.display(),
                output.status
            );
        }
        let text = String::from_utf8(output.stdout).context("understand Python")?;
        let mut lines = text.lines();
        lines
            .next()
            .unwrap_or_default()
            .clone_into(&mut compiled.tag);
        for line in lines {
            let place: usize = line.parse().context("understand Python")?;
            let module = *share.get(place).context("understand Python")?;
            compiled.succeeded[module] = true;
        }
    }
    Ok(compiled)
}

/// Indices of `modules`, spread over `count` processes so that all have the same to do.
fn shares(modules: &[Module], count: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..modules.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(modules[*index].size));
    let mut shares = vec![(0, Vec::new()); count];
    for index in order {
        let least = shares
            .iter_mut()
            .min_by_key(|(size, _)| *size)
            .expect("there is at least one process");
        least.0 += modules[index].size + 1;
        least.1.push(index);
    }
    shares.into_iter().map(|(_, share)| share).collect()
}

fn fields(modules: &[Module], share: &[usize]) -> Vec<u8> {
    let mut fields = Vec::new();
    for index in share {
        let module = &modules[*index];
        for field in [
            module.source.as_os_str().as_encoded_bytes(),
            module.target.as_os_str().as_encoded_bytes(),
            module.name.as_bytes(),
        ] {
            fields.extend_from_slice(field);
            fields.push(0);
        }
    }
    fields
}

fn start(python: &Path, flags: &str) -> std::io::Result<Child> {
    Command::new(python)
        // Without what packages have Python run at its start. `-I` would ignore PYTHONHASHSEED, without which the same
        // source gives other bytes each time; there are no other variables, and nothing is imported from a directory.
        // A warning that is shown would have more modules loaded.
        .args(["-s", "-S", "-B", "-W", "ignore", "-c", PROGRAM, flags])
        .env_clear()
        .envs([
            ("LC_ALL", "C.UTF-8"),
            ("PYTHONHASHSEED", "0"),
            ("PATH", "/usr/bin:/bin"),
        ])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_get_the_same_to_do() {
        let module = |size| Module {
            source: PathBuf::new(),
            size,
            target: PathBuf::new(),
            name: String::new(),
        };
        let modules: Vec<Module> = [1, 9, 2, 3, 3].into_iter().map(module).collect();
        let mut shares = shares(&modules, 2);
        for share in &mut shares {
            share.sort_unstable();
        }
        assert_eq!(shares, [vec![0, 1], vec![2, 3, 4]]);
    }
}
