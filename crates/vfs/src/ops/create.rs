//! open(2) with O_CREAT, of a name that the kernel found free.
//!
//! By the time that it gets here others may have made the name. With O_EXCL that is refused, and without it their
//! file is the one that is meant: lock files, logs and databases are made so by whoever comes first. Both ask the
//! master at once. A whole new file (O_TRUNC) is another matter: it exists here only until it is published, and
//! what becomes of it then when its name is taken is up to the collision rule.

use super::entries::NewNode;
use super::{Caller, Created, OpenFlags};
use crate::VfsError;
use crate::file::{File, Origin};
use crate::names::PassedOn;
use crate::vfs::Vfs;
use bytes::Bytes;
use dfs_proto::meta::{Collision, Create};
use dfs_proto::{Attr, ErrorCode, FileKind, Ino, Name, Version};
use std::sync::Arc;

/// How often a name is made or opened that others make and remove all the time. Each try that fails takes two
/// changes by others between two requests.
const TRIES_MAX: usize = 32;

impl Vfs {
    /// Makes and opens a file; `mode` is before the umask. One that others have made meanwhile is opened, unless
    /// the caller wants it for itself (O_EXCL).
    ///
    /// Fails with [`VfsError::Appeared`] when the kernel has to look the name up once more, because something has
    /// got the name that not everybody may open so.
    pub async fn create(
        &self,
        caller: Caller,
        parent: Ino,
        name: &Name,
        mode: u16,
        flags: OpenFlags,
    ) -> Result<Created, VfsError> {
        if flags.exclusive {
            return self.create_at_master(caller, parent, name, mode, flags).await;
        }
        for _ in 0..TRIES_MAX {
            if let Some(created) = self.open_pending(parent, name, flags) {
                return Ok(created);
            }
            let created = if flags.truncate {
                self.create_here(caller, parent, name, mode, flags).await
            } else {
                self.create_at_master(caller, parent, name, mode, flags).await
            };
            match created {
                Err(e) if e.code() == ErrorCode::Exists => {}
                created => return created,
            }
            if !flags.truncate
                && let Some(opened) = self.open_instead(caller, parent, name, flags).await?
            {
                return Ok(opened);
            }
        }
        Err(VfsError::Appeared)
    }

    /// A new file that everybody sees at once.
    async fn create_at_master(
        &self,
        caller: Caller,
        parent: Ino,
        name: &Name,
        mode: u16,
        flags: OpenFlags,
    ) -> Result<Created, VfsError> {
        let node = NewNode { kind: FileKind::File, mode, rdev: 0, target: Bytes::new() };
        // A file that several mounts use may be removed by one as soon as it is there. One that its maker has for
        // itself most likely is not, and need not cost a close.
        let opened = !flags.exclusive;
        let (attr, asked) = self.make_at_master(caller, parent, name, node, opened).await?;
        let file = self.hold(&attr, Origin::Published);
        {
            let mut state = file.lock();
            state.pins += u32::from(opened);
            // Of this version nothing is left to be known. Others may have made another one since.
            state.base_known_to = u64::MAX;
            state.stale = self.names.is_outdated(attr.ino, asked);
        }
        let attr = self.tell_made(parent, name, attr, asked);
        if !opened {
            self.pin_if_it_stays_open(&file);
        }
        Ok(Created { attr, opened: self.handle_for(file, flags, None) })
    }

    /// A new file that exists here only until it is published. `exists` when another thread of this mount was faster.
    async fn create_here(
        &self,
        caller: Caller,
        parent: Ino,
        name: &Name,
        mode: u16,
        flags: OpenFlags,
    ) -> Result<Created, VfsError> {
        // With a default ACL only the master can tell the mode, and applications may look at it at once.
        let inherited = self.passed_on(parent).await?;
        let create = Create {
            parent,
            name: name.clone(),
            mode,
            umask: caller.umask,
            uid: caller.uid,
            gid: inherited.gid.unwrap_or(caller.gid),
            born: Some(self.clock.now()),
            collision: Collision::Default(self.config.collision),
        };
        let file = self.make_here(create).await?;
        if !self.names.add_pending(parent, name, file.ino) {
            self.let_go_dropped(&file);
            return Err(VfsError::NameTaken);
        }
        if inherited.has_acl
            && let Err(e) = self.publish(&file, false).await
        {
            self.names.remove_pending(parent, name, file.ino);
            self.let_go_dropped(&file);
            return Err(e);
        }
        self.names.remember(file.ino, parent, name);
        let attr = self.tell(file.lock().view(), self.names.ask());
        Ok(Created { attr, opened: self.handle_for(file, flags, None) })
    }

    /// Opens what others have made under the name. `None` when nothing has it any more.
    async fn open_instead(
        &self,
        caller: Caller,
        parent: Ino,
        name: &Name,
        flags: OpenFlags,
    ) -> Result<Option<Created>, VfsError> {
        let asked = self.names.ask();
        let attr = match self.find(parent, name).await {
            Ok(attr) => attr,
            Err(e) if e.code() == ErrorCode::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        if !is_surely_allowed(caller, &attr, flags) {
            return Err(VfsError::Appeared);
        }
        self.names.remember(attr.ino, parent, name);
        match self.open(caller, attr.ino, flags).await {
            Ok(opened) => {
                let attr = self.handles.file(opened.fh)?.file.lock().view();
                Ok(Some(Created { attr: self.tell(attr, asked), opened }))
            }
            Err(e) => {
                self.forget(attr.ino, 1);
                if e.code() == ErrorCode::Stale { Ok(None) } else { Err(e) }
            }
        }
    }

    /// What new files take over from the directory.
    pub(super) async fn passed_on(&self, dir: Ino) -> Result<PassedOn, VfsError> {
        match self.known_to_pass_on(dir) {
            Some(passed_on) => Ok(passed_on),
            None => Ok(PassedOn::of(&self.getattr(dir).await?)),
        }
    }

    /// A file that exists here only, with one open.
    pub(super) async fn make_here(&self, create: Create) -> Result<Arc<File>, VfsError> {
        let now = create.born.unwrap_or_else(|| self.clock.now());
        let attr = Attr {
            ino: self.numbers.take(&*self.meta).await?,
            kind: FileKind::File,
            mode: create.mode & !create.umask,
            nlink: 1,
            uid: create.uid,
            gid: create.gid,
            rdev: 0,
            size: 0,
            allocated: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            version: Version(0),
            parent: Ino(0),
            collision: None,
            has_acl: false,
        };
        Ok(self.hold(&attr, Origin::New(create)))
    }

    fn let_go_dropped(&self, file: &Arc<File>) {
        file.lock().origin = Origin::Dropped;
        self.let_go(file);
    }

    /// Opens a file that exists here only, by its name.
    fn open_pending(&self, parent: Ino, name: &Name, flags: OpenFlags) -> Option<Created> {
        let ino = self.names.pending(parent, name)?;
        let file = self.hold_if(ino, |state| state.is_new())?;
        if flags.truncate {
            file.lock().truncate(0, self.clock.now());
        }
        self.names.remember(file.ino, parent, name);
        let attr = self.tell(file.lock().view(), self.names.ask());
        Some(Created { attr, opened: self.handle_for(file, flags, None) })
    }
}

/// Whether the kernel would let the caller open the file like this. It has not checked that, because it takes the
/// file for a new one; what can be told here for sure is only what an owner may do.
fn is_surely_allowed(caller: Caller, attr: &Attr, flags: OpenFlags) -> bool {
    const OWNER_READS: u16 = 0o400;
    const OWNER_WRITES: u16 = 0o200;
    let wanted = if flags.read { OWNER_READS } else { 0 } | if flags.write { OWNER_WRITES } else { 0 };
    attr.kind == FileKind::File && attr.uid == caller.uid && attr.mode & wanted == wanted
}
