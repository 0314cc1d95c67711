//! Opens a file as another account. Root could open any file; if another account may have chosen the file with a link
//! or a name, root lets a process of that account open it, and receives the open file. Nobody gains access through root
//! to more than they can already read.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::system::as_user;

/// The regular file `path`, opened for reading by `user`.
///
/// # Errors
///
/// Why he cannot open it, or that it is not a regular file.
pub(crate) fn as_account(user: &str, group: Option<&str>, path: &Path) -> anyhow::Result<File> {
    let (ours, theirs) = UnixStream::pair().context("create a socket")?;
    ours.set_nonblocking(true).context("create a socket")?;
    as_user::call_with(user, group, &["open"], path, theirs.into())?;
    let file =
        receive(&ours).with_context(|| format!("receive `{}` from `{user}`", path.display()))?;
    // His process may have sent anything.
    ensure_regular(&file, path)?;
    Ok(file)
}

/// As the account: opens the file and sends it over standard input.
pub(crate) fn hand_over(path: &Path) -> anyhow::Result<()> {
    let opened =
        buildbot_conda_host::open(path).with_context(|| format!("read `{}`", path.display()))?;
    let Some((file, _)) = opened else {
        bail!("file `{}` not found", path.display());
    };
    ensure_regular(&file, path)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    message.push(SendAncillaryMessage::ScmRights(&files));
    let stdin = std::io::stdin();
    rustix::net::sendmsg(
        &stdin,
        &[IoSlice::new(b".")],
        &mut message,
        SendFlags::empty(),
    )
    .context("pass a file")?;
    Ok(())
}

fn receive(socket: &UnixStream) -> anyhow::Result<File> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut message,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for part in message.drain() {
        if let RecvAncillaryMessage::ScmRights(mut files) = part
            && let Some(file) = files.next()
        {
            return Ok(file.into());
        }
    }
    bail!("no file was passed")
}

fn ensure_regular(file: &File, path: &Path) -> anyhow::Result<()> {
    let metadata = file
        .metadata()
        .with_context(|| format!("read `{}`", path.display()))?;
    if !metadata.is_file() {
        bail!("`{}` is not a regular file", path.display());
    }
    Ok(())
}
