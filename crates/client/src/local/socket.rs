//! Packets with descriptors over a Unix socket: what readers and a node on one host talk through.
//!
//! SOCK_SEQPACKET keeps packets whole, so there is no framing. The name is in Linux's abstract namespace: it has
//! no place in a file system, needs no clearing up after a crash, and is seen on this host only. It has no
//! permissions either, so both sides look at who the other is.

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::fs::File;
use std::io::{Error, ErrorKind, IoSlice, IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// A socket that readers connect to.
pub struct Listener(AsyncFd<OwnedFd>);

/// One end of a connection.
pub struct Packets(AsyncFd<OwnedFd>);

fn socket() -> Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?)
}

/// The socket with the runtime's notice of when it is ready.
fn watched(socket: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is the same open descriptor for as long as it lives, and the AsyncFd takes it over.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

impl Listener {
    /// Listens under `name`, which nobody else on the host may have.
    pub fn bind(name: &str) -> Result<Listener> {
        let socket = socket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Listener(watched(socket)?))
    }

    /// The next connection of somebody who may read what this process can read: root, or its own user. Others
    /// are turned away.
    pub async fn accept(&self) -> Result<Packets> {
        loop {
            let accepted =
                self.0.async_io(Interest::READABLE, |fd| Ok(rustix::net::accept_with(fd, FLAGS)?)).await?;
            let connection = Packets(watched(accepted)?);
            match connection.check_peer() {
                Ok(()) => return Ok(connection),
                Err(e) => log::info!("a reader on this host is turned away: {e}"),
            }
        }
    }
}

impl Packets {
    /// Connects to the listener `name`, which must be of root or of the own user.
    pub fn connect(name: &str) -> Result<Packets> {
        let socket = socket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        let connection = Packets(watched(socket)?);
        connection.check_peer()?;
        Ok(connection)
    }

    fn check_peer(&self) -> Result<()> {
        let peer = rustix::net::sockopt::socket_peercred(self.0.get_ref())?.uid;
        // Root can read everything on the host anyway.
        if peer.is_root() || peer == rustix::process::geteuid() {
            return Ok(());
        }
        let message = format!("the other end belongs to user {}", peer.as_raw());
        Err(Error::new(ErrorKind::PermissionDenied, message))
    }

    /// Sends one packet, with a descriptor if there is one.
    pub async fn send(&self, packet: &[u8], file: Option<BorrowedFd<'_>>) -> Result<()> {
        let send = |socket: &OwnedFd| {
            let files: Vec<BorrowedFd<'_>> = file.into_iter().collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !files.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&files));
            }
            let data = [IoSlice::new(packet)];
            Ok(rustix::net::sendmsg(socket.as_fd(), &data, &mut control, SendFlags::NOSIGNAL)?)
        };
        match self.0.async_io(Interest::WRITABLE, send).await? {
            sent if sent == packet.len() => Ok(()),
            sent => Err(Error::other(format!("{sent} of {} bytes were sent", packet.len()))),
        }
    }

    /// Receives one packet of at most `bytes_max` bytes, with its descriptor if it has one; `None` when the
    /// other end is gone.
    pub async fn receive(&self, bytes_max: usize) -> Result<Option<(Vec<u8>, Option<File>)>> {
        let receive = |socket: &OwnedFd| {
            let mut packet = vec![0; bytes_max];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut data = [IoSliceMut::new(&mut packet)];
            let got = rustix::net::recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let files = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(files) => Some(files),
                _ => None,
            });
            let file = files.flatten().next().map(File::from);
            if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
                return Err(Error::new(ErrorKind::InvalidData, "a packet is too long"));
            }
            packet.truncate(got.bytes);
            Ok((packet, file))
        };
        let (packet, file) = self.0.async_io(Interest::READABLE, receive).await?;
        Ok((!packet.is_empty()).then_some((packet, file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[tokio::test]
    async fn packets_stay_whole_and_carry_descriptors() {
        let name = format!("dfs-test-{}", rand::random::<u128>());
        let listener = Listener::bind(&name).unwrap();
        assert!(Listener::bind(&name).is_err(), "the name is taken");
        let client = Packets::connect(&name).unwrap();
        let server = listener.accept().await.unwrap();
        client.send(b"one", None).await.unwrap();
        client.send(b"two", None).await.unwrap();
        assert_eq!(server.receive(10).await.unwrap().unwrap().0, b"one");
        assert_eq!(server.receive(10).await.unwrap().unwrap().0, b"two");

        let mut file = tempfile();
        file.write_all(b"content").unwrap();
        file.rewind().unwrap();
        server.send(b"here", Some(file.as_fd())).await.unwrap();
        let (packet, passed) = client.receive(10).await.unwrap().unwrap();
        let mut text = String::new();
        passed.unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((&packet[..], &text[..]), (&b"here"[..], "content"));

        server.send(b"longer than ten", None).await.unwrap();
        assert!(client.receive(10).await.is_err(), "nothing is cut off silently");
        drop(server);
        assert!(client.receive(10).await.unwrap().is_none());
        drop(listener);
        assert!(Packets::connect(&name).is_err(), "nobody listens");
    }

    /// A file without a name.
    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("dfs-test-{}", rand::random::<u128>()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }
}
