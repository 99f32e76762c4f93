//! The socket between gateway and host: whole messages, with open files beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

/// Largest message in bytes. Tensors are not in messages, only where they lie.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// One end. A message arrives whole or not at all, and the other end's death is an end of file, which a datagram socket
/// would not tell.
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Both ends, inherited by nobody.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (here, there) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(here), Self(there)))
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// The end that this process was started with.
    #[cfg(feature = "delegate-host")]
    pub(super) fn inherited() -> io::Result<Self> {
        let end = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
        Ok(Self(end))
    }

    /// How long `receive` and `send` wait from now on.
    pub(super) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        // Zero would wait for ever.
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        set_socket_timeout(&self.0, Timeout::Recv, timeout)?;
        set_socket_timeout(&self.0, Timeout::Send, timeout)?;
        Ok(())
    }

    /// Sends a message, with at most one file.
    pub(super) fn send(&self, message: &[u8], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if message.len() > MESSAGE_BYTES_MAX {
            let what = format!("a message of {} bytes, the most is {MESSAGE_BYTES_MAX}", message.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let files = file.map(|file| [file]);
        if let Some(files) = &files {
            beside.push(SendAncillaryMessage::ScmRights(files));
        }
        again(|| rustix::net::sendmsg(&self.0, &[IoSlice::new(message)], &mut beside, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Receives a message into `buffer`, which has room for the largest, and says how long it is: 0 if the other end is gone.
    /// Files that come with it are closed.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (_, length) = again(|| rustix::net::recv(&self.0, &mut *buffer, RecvFlags::TRUNC))?;
        whole(length)
    }

    /// Receives a message with the file that came beside it.
    #[cfg_attr(not(feature = "delegate-host"), allow(dead_code, reason = "only a host gets files"))]
    pub(super) fn receive_with_file(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = again(|| {
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC;
            rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(buffer)], &mut beside, flags)
        })?;
        let file = beside.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        Ok((whole(received.bytes)?, file))
    }
}

/// Room for the largest message.
pub(super) fn buffer() -> Box<[u8]> {
    vec![0; MESSAGE_BYTES_MAX].into_boxed_slice()
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A signal that a debugger or a profiler sends must not look like a dead host.
fn again<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

fn whole(length: usize) -> io::Result<usize> {
    if length <= MESSAGE_BYTES_MAX {
        return Ok(length);
    }
    let what = format!("a message of {length} bytes, the most is {MESSAGE_BYTES_MAX}");
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::delegate::system::sealed_memory;

    #[test]
    fn a_message_arrives_whole_with_its_file() {
        let (here, there) = Socket::pair().unwrap();
        let file = sealed_memory(128).unwrap();
        here.send(b"load", Some(file.as_fd())).unwrap();
        here.send(b"run", None).unwrap();
        let mut buffer = buffer();
        let (length, came) = there.receive_with_file(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], rustix::fs::fstat(came.unwrap()).unwrap().st_size), (&b"load"[..], 128));
        let (length, none) = there.receive_with_file(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], none.is_none()), (&b"run"[..], true));
    }

    #[test]
    fn the_other_ends_death_is_the_end_and_silence_is_a_time_out() {
        let (here, there) = Socket::pair().unwrap();
        let mut buffer = buffer();
        here.set_timeout(Duration::from_millis(1)).unwrap();
        assert_eq!(here.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(there);
        assert_eq!(here.receive(&mut buffer).unwrap(), 0);
        assert_eq!(here.send(b"run", None).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_message_over_the_bound_is_neither_sent_nor_taken() {
        let (here, there) = Socket::pair().unwrap();
        assert!(here.send(&vec![0; MESSAGE_BYTES_MAX + 1], None).is_err());
        let raw = there.into_fd();
        rustix::net::send(&raw, &vec![1; MESSAGE_BYTES_MAX + 1], SendFlags::empty()).unwrap();
        let error = here.receive(&mut buffer()).unwrap_err().to_string();
        assert_eq!(error, "a message of 65537 bytes, the most is 65536");
    }
}
