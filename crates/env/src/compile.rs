//! Runs the Python of a package to compile modules, with as many processes as there are processors. It is untrusted: it
//! receives the text of modules, and its output is written here, up to a limit. [`crate::bytecode`] uses the bytecode.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, anyhow, bail, ensure};
use buildbot_conda_core::foreign_text::ForeignText;

use crate::place::Kind;
use crate::sandbox::Sandbox;

/// The program for Python.
const PROGRAM: &str = include_str!("compile.py");
/// So many modules are worth the start of one more Python.
const WORTH: usize = 64;
/// For all of it: the largest environments take a few minutes.
const LIMIT: Duration = Duration::from_mins(30);
/// How often the end of a process is looked for.
const POLL: Duration = Duration::from_millis(2);
/// Maximum size of the bytecode of a module: a constant part, and a multiple of the size of its source. The usual
/// factor is one.
const ALLOWED: (u64, u64) = (1 << 20, 64);
/// Bytes of standard error that are kept.
const MOST_SAID: u64 = 1 << 16;
/// A constant time stamp, seconds since 1970: a file that was written to later is known by it. 1980, as archives know no
/// earlier one.
pub(crate) const TIME: u64 = 315_532_800;

/// One module to be compiled.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    pub(crate) source: PathBuf,
    /// Size of the source, in bytes.
    pub(crate) size: u64,
    /// The file to write, which is not there yet.
    pub(crate) target: PathBuf,
    /// The source below the prefix: the name in the bytecode, until an import replaces it by the full path.
    pub(crate) name: String,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    Compiled(Compiled),
    /// Python did not get as far as to compile anything, for this reason.
    NotStarted(ForeignText),
}

/// Bytecode on disk.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    /// The part of the names of bytecode files that the interpreter knows as its own, such as `cpython-311`.
    pub(crate) tag: String,
    /// For each module, whether it has bytecode now; a file that is not valid Python has none.
    pub(crate) succeeded: Vec<bool>,
    /// What could not be done as it should.
    pub(crate) warning: Option<String>,
}

/// Compiles `modules` with the `bin/python` of a directory, none of whose own modules has bytecode yet: what the
/// interpreter has loaded must not depend on it.
///
/// # Errors
///
/// When Python does not come to its end, or answers what it should not.
pub(crate) fn compile(directory: &Path, kind: Kind, modules: &[Module]) -> anyhow::Result<Outcome> {
    let mut compiled = Compiled {
        succeeded: vec![false; modules.len()],
        ..Compiled::default()
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let shares = shares(modules, processors.min(modules.len().div_ceil(WORTH)));
    // A separate account for each: remaining processes are terminated by their account.
    let sandboxes = shares.iter().map(|_| Sandbox::new());
    let sandboxes: Vec<Sandbox> = sandboxes.collect::<anyhow::Result<_>>()?;
    compiled.warning = sandboxes.iter().find_map(|one| one.warning.clone());
    let end = Instant::now() + LIMIT;
    let answers: Vec<anyhow::Result<Answer>> = thread::scope(|scope| {
        let share = |(share, sandbox)| {
            scope.spawn(move || ask(sandbox, directory, kind, modules, share, end))
        };
        let with_sandbox = shares.iter().map(Vec::as_slice).zip(&sandboxes);
        let threads: Vec<_> = with_sandbox.map(share).collect();
        let ends = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        ends.collect()
    });
    for (answer, share) in answers.into_iter().zip(&shares) {
        let answer = answer.context("compile modules")?;
        let Some(tag) = answer.tag else {
            return Ok(Outcome::NotStarted(answer.said));
        };
        ensure!(
            compiled.tag.is_empty() || compiled.tag == tag,
            "compile modules: Python reported two names for its bytecode"
        );
        compiled.tag = tag;
        for place in answer.done {
            compiled.succeeded[share[place]] = true;
        }
    }
    Ok(Outcome::Compiled(compiled))
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

/// What one process has answered.
struct Answer {
    /// None where it answered nothing.
    tag: Option<String>,
    /// Places in its share.
    done: Vec<usize>,
    /// The last line of its standard error.
    said: ForeignText,
}

fn ask(
    sandbox: &Sandbox,
    directory: &Path,
    kind: Kind,
    modules: &[Module],
    share: &[usize],
    end: Instant,
) -> anyhow::Result<Answer> {
    // PEP 552: hash-based, and whether that is checked.
    let flags = match kind {
        Kind::Generation => "1",
        Kind::Open => "3",
    };
    let count = share.len().to_string();
    // Without settings with which packages could make Python run code at its start. `-I` would ignore PYTHONHASHSEED,
    // without which the same source gives different bytes each time; there are no other variables, and nothing is
    // imported from a directory. A visible warning would load more modules.
    let words = [
        "-s", "-S", "-B", "-W", "ignore", "-c", PROGRAM, flags, &count,
    ];
    let variables = ["LC_ALL=C.UTF-8", "PYTHONHASHSEED=0", "PATH=/usr/bin:/bin"];
    let mut child = sandbox
        .command(directory, "bin/python", &variables, words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run `setsid`")?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(input), Some(output), Some(error)) = pipes else {
        bail!("Python has no pipes");
    };
    let child = Mutex::new(child);
    thread::scope(|scope| {
        let (finished, watched) = mpsc::channel::<()>();
        let (child, sandbox) = (&child, sandbox);
        let watch = scope.spawn(move || {
            let rest = end.saturating_duration_since(Instant::now());
            let is_late = watched.recv_timeout(rest) == Err(RecvTimeoutError::Timeout);
            if is_late {
                stop(child, sandbox);
            }
            is_late
        });
        let sources = scope.spawn(move || give(input, modules, share));
        let said = scope.spawn(move || last_line(error));
        let answer = receive(output, modules, share);
        if answer.is_err() {
            stop(child, sandbox);
        }
        let status = wait(child);
        // What it has left may hold the pipes.
        sandbox.end();
        drop(finished);
        if watch.join().unwrap_or_default() {
            bail!("Python did not finish within {} s", LIMIT.as_secs());
        }
        let said = said.join().unwrap_or_default();
        let (tag, done) = answer?;
        let status = status.context("wait for Python")?;
        if tag.is_some() && !status.success() {
            bail!("Python failed, {status}: {said}");
        }
        // A process that exits early reports the reason itself; an error in a source only counts otherwise.
        match sources.join() {
            Ok(outcome) if status.success() => outcome?,
            _ => {}
        }
        Ok(Answer { tag, done, said })
    })
}

fn locked(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stop(child: &Mutex<Child>, sandbox: &Sandbox) {
    // It may have exited by itself.
    let _ = locked(child).kill();
    sandbox.end();
}

/// Its own end: others may keep its pipes open.
fn wait(child: &Mutex<Child>) -> std::io::Result<ExitStatus> {
    loop {
        if let Some(status) = locked(child).try_wait()? {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
}

/// For each module the lengths of its name and its text, 16 digits each, and then both.
fn give(mut input: impl Write, modules: &[Module], share: &[usize]) -> anyhow::Result<()> {
    for index in share {
        let module = &modules[*index];
        let text = fs::read(&module.source)
            .with_context(|| format!("read `{}`", module.source.display()))?;
        let head = format!("{:016}{:016}{}", module.name.len(), text.len(), module.name);
        let written = input
            .write_all(head.as_bytes())
            .and_then(|()| input.write_all(&text));
        if written.is_err() {
            // It reads no more: its exit status is more informative.
            return Ok(());
        }
    }
    Ok(())
}

fn last_line(error: impl Read) -> ForeignText {
    let mut said = Vec::new();
    let mut error = error.take(MOST_SAID);
    let _ = error.read_to_end(&mut said);
    // The rest of its output is read, so that it does not block.
    let _ = std::io::copy(&mut error.into_inner(), &mut std::io::sink());
    let lines = ForeignText::lines_of(&said);
    let last = lines.into_iter().rfind(|line| !line.trim().is_empty());
    last.unwrap_or_default()
}

/// A line with the tag, then for each module that was compiled a line with its place in the share and the length of its
/// bytecode, and that. Whatever else comes is refused.
fn receive(
    output: ChildStdout,
    modules: &[Module],
    share: &[usize],
) -> anyhow::Result<(Option<String>, Vec<usize>)> {
    let mut output = BufReader::with_capacity(1 << 16, output);
    let Some(tag) = line(&mut output)? else {
        return Ok((None, Vec::new()));
    };
    let is_tag = tag
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    ensure!(
        is_tag,
        "unexpected name of bytecode from Python: `{}`",
        ForeignText::new(&tag)
    );
    let mut done: Vec<usize> = Vec::new();
    while let Some(head) = line(&mut output)? {
        let numbers = head.split_once(' ');
        let numbers =
            numbers.and_then(|(place, length)| Some((place.parse().ok()?, length.parse().ok()?)));
        let next = done.last().map_or(0, |last| last + 1);
        let (place, length): (usize, u64) = numbers
            .filter(|(place, _)| (next..share.len()).contains(place))
            .with_context(|| {
                format!(
                    "unexpected answer from Python: `{}`",
                    ForeignText::new(&head)
                )
            })?;
        let module = &modules[share[place]];
        ensure!(
            length <= ALLOWED.0 + ALLOWED.1 * module.size,
            "Python returned {length} bytes of bytecode for the {} bytes of `{}`",
            module.size,
            module.name
        );
        write(&module.target, &mut (&mut output).take(length), length)?;
        done.push(place);
    }
    Ok((Some(tag), done))
}

fn write(target: &Path, bytecode: &mut impl Read, length: u64) -> anyhow::Result<()> {
    let shown = || format!("write `{}`", target.display());
    let mut file = File::create(target).with_context(shown)?;
    let written = std::io::copy(bytecode, &mut file).with_context(shown)?;
    ensure!(
        written == length,
        "Python stopped in the middle of a module"
    );
    file.set_modified(UNIX_EPOCH + Duration::from_secs(TIME))
        .with_context(shown)
}

/// A short line, without its end; none at the end of everything.
fn line(output: &mut BufReader<ChildStdout>) -> anyhow::Result<Option<String>> {
    let mut bytes = Vec::new();
    output
        .take(64)
        .read_until(b'\n', &mut bytes)
        .context("read the answer of Python")?;
    match bytes.strip_suffix(b"\n") {
        Some(text) => Ok(Some(String::from_utf8_lossy(text).into_owned())),
        None if bytes.is_empty() => Ok(None),
        None => Err(anyhow!(
            "unexpected answer from Python: `{}`",
            ForeignText::of_bytes(&bytes)
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A directory with a program in the place of Python, and a module.
    fn with_python(script: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("bin")).unwrap();
        fs::write(path("bin/python"), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::write(path("source"), "x = 1\n").unwrap();
        for name in ["", "bin/python"] {
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        directory
    }

    /// What comes of two modules with a program in the place of Python, which has half a second.
    fn answer(script: &str) -> String {
        let directory = with_python(script);
        let path = |name: &str| directory.path().join(name);
        let modules: Vec<Module> = ["0", "1"]
            .map(|name| module(&path("source"), &path(name)))
            .into();
        let sandbox = Sandbox::new().unwrap();
        let end = Instant::now() + Duration::from_millis(500);
        let shares = [0, 1];
        let asked = ask(
            &sandbox,
            directory.path(),
            Kind::Generation,
            &modules,
            &shares,
            end,
        );
        match asked {
            Ok(Answer {
                tag: None, said, ..
            }) => format!("not started: {said}"),
            Ok(answer) => format!("{} {:?}", answer.tag.unwrap(), answer.done),
            Err(error) => format!("{error:#}"),
        }
    }

    fn module(source: &Path, target: &Path) -> Module {
        Module {
            source: source.to_owned(),
            size: 6,
            target: target.to_owned(),
            name: "source".to_owned(),
        }
    }

    #[test]
    fn an_answer_is_bytecode_of_modules_and_nothing_else() {
        for (script, expect) in [
            (
                "cat >/dev/null; echo tag; echo '0 3'; printf abc; echo '1 0'",
                "tag [0, 1]",
            ),
            ("echo tag", "tag []"),
            ("echo why >&2; exit 3", "not started: why"),
            (
                "echo tag; echo '1 1'; printf a; echo why >&2; exit 3",
                "Python failed, exit status: 3: why",
            ),
            (
                "echo ../../../etc",
                "unexpected name of bytecode from Python: `../../../etc`",
            ),
            (
                "printf 'a\\033[2J\\n'",
                "unexpected name of bytecode from Python: `a\\u{1b}[2J`",
            ),
            (
                "echo tag; echo '2 0'",
                "unexpected answer from Python: `2 0`",
            ),
            (
                "echo tag; echo '0 0'; echo '0 0'",
                "unexpected answer from Python: `0 0`",
            ),
            (
                "echo tag; echo '-1 0'",
                "unexpected answer from Python: `-1 0`",
            ),
            (
                "echo tag; echo '0 9'; printf abc",
                "Python stopped in the middle of a module",
            ),
            (
                "echo tag; echo '0 1048961'; exec yes",
                "Python returned 1048961 bytes of bytecode for the 6 bytes of `source`",
            ),
            (
                "exec tr '\\0' x </dev/zero",
                &format!("unexpected answer from Python: `{}`", "x".repeat(64)),
            ),
        ] {
            assert_eq!(answer(script), expect, "{script}");
        }
    }

    #[test]
    fn what_does_not_end_is_ended_with_all_it_has_left() {
        let late = "Python did not finish within 1800 s";
        for (script, expect) in [
            ("exec sleep 1000", late),
            ("kill -STOP $$; exec sleep 1000", late),
            ("sleep 1000 & echo tag; wait", late),
            ("echo tag; exec >&-; exec sleep 1000", late),
            ("sleep 1000 >/dev/null 2>&1 & echo tag", "tag []"),
        ] {
            let began = Instant::now();
            assert_eq!(answer(script), expect, "{script}");
            assert!(began.elapsed() < Duration::from_secs(20), "{script}");
        }
    }

    #[test]
    fn whoever_compiles_has_no_rights_no_network_and_no_terminal() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let seen = answer(
            "s() { grep $1 /proc/self/status | cut -f2; }\n\
             test -w bin/python && exit 9; echo x >new && exit 9; (: </dev/tty) 2>/dev/null && exit 9\n\
             echo \"$(id -u)=$(id -G) $(s NoNewPrivs)$(s CapEff | tr -d 0)$(s CapBnd | tr -d 0) $(grep -c : /proc/net/dev)\"",
        );
        let sandbox = Sandbox::new().unwrap();
        let interfaces = if sandbox.warning.is_none() {
            " 1`"
        } else {
            "`"
        };
        let words = seen
            .strip_prefix("unexpected name of bytecode from Python: `")
            .unwrap_or_default();
        let (user, rest) = words.split_once('=').unwrap_or_default();
        assert!(
            user.parse::<u32>().is_ok_and(|user| user >= 61184),
            "{seen}"
        );
        assert!(rest.starts_with(&format!("{user} 1 ")), "{seen}");
        assert!(rest.ends_with(interfaces), "{seen}");
    }

    #[test]
    fn a_process_that_has_finished_takes_no_other_one_along() {
        let directory = with_python("for count; do :; done; [ $count = 1 ] || sleep 0.5; echo tag");
        let path = |name: &str| directory.path().join(name);
        fs::write(path("large"), "x = 1\n".repeat(500)).unwrap();
        let large = Module {
            size: 3000,
            ..module(&path("large"), &path("0"))
        };
        let small = (1..2 * WORTH).map(|name| module(&path("source"), &path(&name.to_string())));
        let modules: Vec<Module> = [large].into_iter().chain(small).collect();
        let outcome = compile(directory.path(), Kind::Generation, &modules).unwrap();
        assert!(matches!(outcome, Outcome::Compiled(found) if found.tag == "tag"));
    }

    #[test]
    fn processes_get_the_same_to_do() {
        let module = |size| Module {
            size,
            ..module(Path::new(""), Path::new(""))
        };
        let modules: Vec<Module> = [1, 9, 2, 3, 3].into_iter().map(module).collect();
        let mut shares = shares(&modules, 2);
        for share in &mut shares {
            share.sort_unstable();
        }
        assert_eq!(shares, [vec![0, 1], vec![2, 3, 4]]);
    }
}
