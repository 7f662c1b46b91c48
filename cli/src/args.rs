//! The command line.

use crate::remote::RemotePath;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand};
use dfs_proto::CollisionPolicy;
use dfs_proto::backup::BackupName;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Files in a dfs cluster. Each remote path is one from the cluster's root, with or without a leading `/`.
#[derive(Debug, Parser)]
#[command(name = "dfs", version, about, propagate_version = true)]
pub(crate) struct Args {
    /// The master
    #[arg(
        long,
        global = true,
        env = "DFS_MASTER",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8820"
    )]
    #[arg(value_parser = master_url)]
    pub master: String,
    /// Answer in JSON, one document per line
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store files; a taken name is kept and the new file becomes NAME-1.EXT
    Put(PutArgs),
    /// Fetch a file and check it against its MD5
    Get(GetArgs),
    /// List a directory
    Ls(LsArgs),
    /// Remove files
    Rm(RmArgs),
    /// Make directories
    Mkdir(MkdirArgs),
    /// Move or rename a file or a directory
    Mv(MvArgs),
    /// Show a file's size, MD5 and version, and where each copy is and whether it is whole
    Stat(StatArgs),
    /// Show nodes, capacity, files and how far replication is behind
    Status,
    /// List storage nodes, empty one, forget one
    #[command(subcommand)]
    Node(NodeCommand),
    /// List, take and restore copies of the master's database, which storage nodes keep
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Move copies from the fullest to the emptiest nodes until used space is even; goes on in the background when
    /// the command is ended
    Rebalance(RebalanceArgs),
    /// Run a whole cluster in this process, until Ctrl-C
    Up(UpArgs),
    /// Succeed if the server at URL is in service (for health checks)
    Health {
        /// Base URL of a master or a storage node
        url: String,
    },
}

impl Command {
    /// Log level where `DFS_LOG` does not set any: a running cluster tells what it does, the rest only
    /// what went wrong on the way.
    pub(crate) fn log_level(&self) -> &'static str {
        match self {
            Command::Up(_) => "info",
            _ => "warn",
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The last of several PATHs is the remote place, unless it is a file here; --to leaves no \
    doubt. A remote directory (which exists, or ends in `/`) takes the files under their own names. Missing \
    directories are made. The local file `-` is standard input and needs a remote name."
)]
pub(crate) struct PutArgs {
    /// Local files, and where to put them (the root when it is not said)
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<OsString>,
    /// Remote name or directory; every PATH is a local file then
    #[arg(long, value_name = "REMOTE", value_parser = remote_path())]
    pub to: Option<RemotePath>,
    /// What to do when the name is taken; without it as the directory says, else `rename`
    #[arg(long, value_name = "rename|replace")]
    pub collision: Option<CollisionPolicy>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// The file
    #[arg(value_parser = remote_path())]
    pub remote: RemotePath,
    /// Local file or directory; `-` is standard output [default: the same name, here]
    pub local: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    /// Mode, links, owner, size and time of each entry as well
    #[arg(short)]
    pub long: bool,
    /// Directory or file
    #[arg(default_value = "/", value_parser = remote_path())]
    pub path: RemotePath,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RmArgs {
    /// Directories as well, with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    /// What to remove
    #[arg(required = true, value_name = "PATH", value_parser = remote_path())]
    pub paths: Vec<RemotePath>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MkdirArgs {
    /// The directories above as well; not an error when the directory is there
    #[arg(short, long)]
    pub parents: bool,
    /// What to make
    #[arg(required = true, value_name = "PATH", value_parser = remote_path())]
    pub paths: Vec<RemotePath>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MvArgs {
    /// What to move
    #[arg(value_parser = remote_path())]
    pub from: RemotePath,
    /// New name, or a directory to move it into
    #[arg(value_parser = remote_path())]
    pub to: RemotePath,
    /// Take the place of a file that has the new name
    #[arg(long)]
    pub replace: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatArgs {
    /// The file
    #[arg(value_parser = remote_path())]
    pub path: RemotePath,
    /// Only what the master knows: read nothing to find the MD5 or to check copies
    #[arg(long)]
    pub quick: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the storage nodes
    Ls,
    /// Empty a node while it serves: it gets no new data, and what it has is copied to others and verified there
    /// before it goes. Returns when it is empty; ending the command does not end the emptying
    Drain(DrainArgs),
    /// Forget a node that is empty, or dead and not needed any more
    Remove(RemoveArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// List the backups, the newest first
    Ls(BackupLsArgs),
    /// Take one now
    Now,
    /// Fetch one into the data folder of a master that is not running and has no database; the master takes it up
    /// when it is started. What was changed after the backup is not in it
    Restore(BackupRestoreArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct BackupLsArgs {
    /// Storage nodes to ask, when the master cannot say which there are
    #[arg(long, value_name = "URL")]
    pub node: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BackupRestoreArgs {
    /// Which one [default: the newest]
    pub name: Option<BackupName>,
    /// Data folder of the master
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Storage nodes to ask, when the master cannot say which there are
    #[arg(long, value_name = "URL")]
    pub node: Vec<String>,
    /// Shared secret, when the cluster has one
    #[arg(long, env = "DFS_CLUSTER_KEY", default_value = "", hide_env_values = true)]
    pub cluster_key: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    /// Name of the node, as `dfs node ls` shows it
    pub name: String,
    /// Have it hold data again
    #[arg(long)]
    pub undo: bool,
    /// Return at once
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Name of the node, as `dfs node ls` shows it
    pub name: String,
    /// Also when it has the only copies of something, which is lost then
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RebalanceArgs {
    /// Stop it
    #[arg(long, conflicts_with = "no_wait")]
    pub stop: bool,
    /// Return at once
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Storage nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub nodes: u16,
    /// Copies of each file
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub replicas: u32,
    /// Folder for everything; started again on it, the cluster has all its files
    /// [default: ~/.local/share/dfs]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Mount the files here
    #[arg(long, value_name = "DIR")]
    pub mount: Option<PathBuf>,
    /// Where the master listens; the nodes take free ports at the same address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8820")]
    pub listen: SocketAddr,
    /// Host name or address by which other machines reach this one, with --listen 0.0.0.0:PORT
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// Keep the replication orders in this Redis (redis://HOST:PORT)
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
}

fn remote_path() -> impl TypedValueParser<Value = RemotePath> {
    OsStringValueParser::new().try_map(RemotePath::parse)
}

/// Port of a master whose address names none.
const MASTER_PORT: u16 = 8820;

fn master_url(address: &str) -> Result<String, String> {
    dfs_service::server_url(address, MASTER_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["dfs"], line].concat())
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn options_for_all_commands_stand_before_or_after() {
        for line in [&["--master", "h:1", "--json", "status"][..], &["status", "--json", "--master", "h:1"]] {
            let args = parse(line).unwrap();
            assert_eq!(args.master, "http://h:1");
            assert!(args.json);
        }
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        for (line, kind) in [
            (&["get", "/a/../b"][..], ErrorKind::ValueValidation),
            (&["--master", "https://h", "status"], ErrorKind::ValueValidation),
            (&["put", "a", "--collision", "maybe"], ErrorKind::ValueValidation),
            (&["up", "--nodes", "0"], ErrorKind::ValueValidation),
            (&["put"], ErrorKind::MissingRequiredArgument),
            (&["frobnicate"], ErrorKind::InvalidSubcommand),
        ] {
            let e = parse(line).unwrap_err();
            assert_eq!(e.kind(), kind, "{line:?}");
            assert_eq!(e.exit_code(), 2);
        }
    }

    #[test]
    fn a_single_dash_is_a_value() {
        let Command::Put(put) = parse(&["put", "-", "/notes.txt"]).unwrap().command else { panic!() };
        assert_eq!(put.paths, ["-", "/notes.txt"]);
        let Command::Get(get) = parse(&["get", "/notes.txt", "-"]).unwrap().command else { panic!() };
        assert_eq!(get.local.unwrap().as_os_str(), "-");
    }

    #[test]
    fn ls_is_about_the_root_when_nothing_is_said() {
        let Command::Ls(ls) = parse(&["ls"]).unwrap().command else { panic!() };
        assert_eq!((ls.path.to_string().as_str(), ls.long), ("/", false));
    }
}
