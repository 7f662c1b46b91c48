//! The `dfs` program as people and scripts use it, against a cluster in this process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

use dfs_cluster::{Cluster, ClusterConfig, wait_for};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// MD5 of nothing.
const EMPTY_MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";
/// How long copies may take to be made.
const COPIES: Duration = Duration::from_secs(30);

/// A cluster, and a folder that commands run in.
struct Bench {
    cluster: Cluster,
    here: TempDir,
    _data: TempDir,
}

impl Bench {
    async fn new() -> Bench {
        let data = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(ClusterConfig::for_tests(data.path())).await.unwrap();
        Bench { cluster, here: tempfile::tempdir().unwrap(), _data: data }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.here.path().join(name)
    }

    fn write(&self, name: impl AsRef<OsStr>, content: &[u8]) {
        std::fs::write(self.here.path().join(name.as_ref()), content).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    fn ok<A: AsRef<OsStr>>(&self, args: &[A]) -> String {
        self.run(args).success()
    }

    fn json<A: AsRef<OsStr>>(&self, args: &[A]) -> Vec<Value> {
        let mut command = self.command(args);
        let text = Ran::of(command.arg("--json").output().unwrap()).success();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn with_input<A: AsRef<OsStr>>(&self, args: &[A], input: &[u8]) -> Ran {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = dfs(self.here.path());
        command.arg("--master").arg(self.cluster.master_url()).args(args);
        command
    }

    /// Names in the root, as `ls` lists them.
    fn names(&self) -> Vec<String> {
        self.ok(&["ls"]).lines().map(str::to_owned).collect()
    }
}

fn dfs(here: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dfs"));
    command.current_dir(here).env_remove("DFS_MASTER").env_remove("DFS_LOG");
    command
}

/// How a run ended.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ran {
    fn of(output: Output) -> Ran {
        let stderr = String::from_utf8(output.stderr).unwrap();
        Ran { code: output.status.code(), stdout: output.stdout, stderr }
    }

    #[track_caller]
    fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        String::from_utf8(self.stdout).unwrap()
    }

    /// The one line that says what went wrong.
    #[track_caller]
    fn failure(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stdout.is_empty(), "{self:?}");
        self.stderr
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_file_of_a_name_is_stored_beside_the_first() {
    let bench = Bench::new().await;
    bench.write("dummy.txt", b"first");
    assert_eq!(bench.ok(&["put", "dummy.txt"]), "File stored successfully!\n");
    bench.write("dummy.txt", b"second");
    assert_eq!(
        bench.ok(&["put", "dummy.txt"]),
        "File stored successfully!\nStored as dummy-1.txt: dummy.txt was taken.\n"
    );
    assert_eq!(bench.names(), ["dummy-1.txt", "dummy.txt"]);
    bench.ok(&["get", "dummy.txt", "one"]);
    bench.ok(&["get", "/dummy-1.txt", "two"]);
    assert_eq!((bench.read("one"), bench.read("two")), (b"first".to_vec(), b"second".to_vec()));
    bench.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_overwrites_the_file_of_the_name() {
    let bench = Bench::new().await;
    bench.write("dummy.txt", b"first, and longer");
    bench.ok(&["put", "dummy.txt"]);
    bench.write("dummy.txt", b"second");
    let told = &bench.json(&["put", "dummy.txt", "--collision", "replace"])[0];
    assert_eq!((&told["stored_as"], &told["renamed"]), (&"dummy.txt".into(), &false.into()));
    assert_eq!((&told["replaced"], &told["size"]), (&true.into(), &6.into()));
    assert_eq!(bench.names(), ["dummy.txt"]);
    assert_eq!(bench.ok(&["get", "dummy.txt", "-"]), "second");
    bench.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_comes_back_whole_and_validated() {
    let bench = Bench::new().await;
    // Several blobs and a part of one.
    let content: Vec<u8> = (0..9_500_001u32).flat_map(|i| i.to_le_bytes()).take(9_500_001).collect();
    bench.write("big.bin", &content);
    let put = &bench.json(&["put", "big.bin", "/sets/a/"])[0];
    assert_eq!(put["path"], "/sets/a/big.bin");
    assert_eq!(put["size"], content.len());
    let md5 = dfs_client::checksum::md5(&content).to_string();
    assert_eq!(put["md5"], md5.as_str());

    let told = bench.ok(&["get", "/sets/a/big.bin"]);
    assert!(told.starts_with("File integrity validated.\n"), "{told}");
    assert!(bench.read("big.bin") == content);
    let ran = bench.run(&["get", "/sets/a/big.bin", "-"]);
    assert!(ran.stdout == content);
    assert_eq!(ran.stderr, "File integrity validated.\n");
    // What is in the way is replaced as a whole; nothing else is left in the folder.
    bench.write("target", b"old");
    let got = &bench.json(&["get", "/sets/a/big.bin", "target"])[0];
    assert_eq!((&got["validated"], &got["md5"]), (&true.into(), &md5.into()));
    assert!(bench.read("target") == content);
    let left: Vec<_> =
        std::fs::read_dir(bench.here.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    bench.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_contents_of_every_kind_are_kept() {
    let bench = Bench::new().await;
    let longest = format!("{}.t", "é".repeat(126));
    assert_eq!(longest.len(), 254);
    let names: Vec<OsString> = vec![
        "Makefile".into(),
        "say \"hi\" it's 100% #1?.txt".into(),
        longest.into(),
        "-dash".into(),
        "two\nlines".into(),
        OsString::from_vec(b"latin-\xe9.txt".to_vec()),
    ];
    for name in &names {
        bench.write(name, name.as_bytes());
        bench.ok(&[OsStr::new("put"), OsStr::new("--"), name]);
    }
    bench.write("empty", b"");
    bench.ok(&["put", "empty"]);
    let listed = bench.json(&["ls"]);
    assert_eq!(listed.len(), names.len() + 1);
    for name in &names {
        let got = bench.run(&[OsStr::new("get"), OsStr::new("--"), name, OsStr::new("-")]);
        assert_eq!(got.code, Some(0), "{name:?}: {got:?}");
        assert_eq!(got.stdout, name.as_bytes());
    }
    // A name cannot forge a line of the listing.
    assert!(bench.names().contains(&"two\\nlines".to_owned()));
    bench.ok(&["get", "empty", "copy"]);
    assert_eq!(bench.read("copy"), b"");
    let stat = &bench.json(&["stat", "empty"])[0];
    assert_eq!((&stat["size"], &stat["md5"]), (&0.into(), &EMPTY_MD5.into()));
    bench.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_stored_under_the_name_that_is_given() {
    let bench = Bench::new().await;
    assert_eq!(bench.with_input(&["put", "-", "/notes/a.txt"], b"typed").code, Some(0));
    assert_eq!(bench.ok(&["get", "/notes/a.txt", "-"]), "typed");
    assert_eq!(bench.with_input(&["put", "-"], b"typed").code, Some(2));
    assert_eq!(bench.names(), ["notes/"]);
    bench.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stat_tells_where_each_copy_is_and_whether_it_is_whole() {
    let bench = Bench::new().await;
    bench.write("report.txt", b"quarterly");
    bench.ok(&["put", "report.txt"]);
    let stat = wait_for("two whole copies", COPIES, || async {
        let stat = bench.json(&["stat", "/report.txt"]).remove(0);
        if stat["whole_copies"] == 2 { Ok(stat) } else { Err(stat.to_string()) }
    });
    let stat = stat.await.unwrap();
    assert_eq!(stat["md5"], dfs_client::checksum::md5(b"quarterly").to_string());
    assert_eq!((&stat["size"], &stat["replicas"], &stat["checked"]), (&9.into(), &2.into(), &true.into()));
    let copies = stat["volumes"][0]["copies"].as_array().unwrap();
    assert_eq!(copies.len(), 2);
    assert_eq!((&copies[0]["primary"], &copies[1]["primary"]), (&true.into(), &false.into()));
    let nodes: Vec<&str> = bench.cluster.nodes().iter().map(|n| n.url()).collect();
    for copy in copies {
        assert_eq!(copy["state"], "whole");
        assert!(nodes.contains(&copy["url"].as_str().unwrap()), "{copy}");
    }
    assert_ne!(copies[0]["url"], copies[1]["url"]);
    let text = bench.ok(&["stat", "/report.txt"]);
    assert!(text.contains("2 whole of 2 wanted (read and verified just now)"), "{text}");
    bench.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stat_sees_the_copy_of_a_stopped_node_missing() {
    let mut bench = Bench::new().await;
    bench.write("report.txt", b"quarterly");
    bench.ok(&["put", "report.txt"]);
    let holder = bench.json(&["stat", "/report.txt"])[0]["volumes"][0]["copies"][0]["url"].clone();
    let i = bench.cluster.nodes().iter().position(|n| n.url() == holder).unwrap();
    bench.cluster.stop_node(i).await;
    let copies = bench.json(&["stat", "/report.txt"])[0]["volumes"][0]["copies"].clone();
    let copy = copies.as_array().unwrap().iter().find(|c| c["url"] == holder);
    assert_eq!(copy.unwrap()["state"], "unreachable", "{copies}");
    bench.cluster.start_node(i).await.unwrap();
    assert_eq!(bench.ok(&["get", "/report.txt", "-"]), "quarterly");
    bench.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_made_listed_moved_and_removed() {
    let bench = Bench::new().await;
    bench.ok(&["mkdir", "-p", "/a/b/c"]);
    bench.ok(&["mkdir", "-p", "/a/b"]);
    bench.write("x.txt", b"x");
    bench.ok(&["put", "x.txt", "/a/b/c"]);
    bench.ok(&["mv", "/a/b/c", "/moved"]);
    assert_eq!(bench.names(), ["a/", "moved/"]);
    bench.ok(&["mv", "/moved/x.txt", "/a"]);
    assert_eq!(bench.ok(&["get", "/a/x.txt", "-"]), "x");
    let long = bench.ok(&["ls", "-l", "/a"]);
    let mut lines = long.lines();
    assert!(lines.next().unwrap().starts_with("drwxr-xr-x"), "{long}");
    assert!(lines.next().unwrap().ends_with("x.txt"), "{long}");

    bench.write("y.txt", b"y");
    bench.ok(&["put", "y.txt", "/a/"]);
    let taken = bench.run(&["mv", "/a/y.txt", "/a/x.txt"]).failure(1);
    assert!(taken.contains("--replace"), "{taken}");
    assert_eq!(bench.ok(&["get", "/a/x.txt", "-"]), "x");
    bench.ok(&["mv", "--replace", "/a/y.txt", "/a/x.txt"]);
    assert_eq!(bench.ok(&["get", "/a/x.txt", "-"]), "y");

    let kept = bench.run(&["rm", "/a"]).failure(1);
    assert!(kept.contains("dfs rm -r"), "{kept}");
    bench.ok(&["rm", "-r", "/a"]);
    bench.ok(&["rm", "-r", "/moved"]);
    assert!(bench.names().is_empty());
    bench.run(&["rm", "-r", "/"]).failure(1);
    bench.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_say_what_happened_to_what_and_change_nothing() {
    let bench = Bench::new().await;
    let absent = bench.run(&["put", "absent.txt"]).failure(1);
    assert!(absent.starts_with("dfs: cannot read absent.txt: No such file"), "{absent}");
    assert_eq!(absent.lines().count(), 1);
    let missing = bench.run(&["get", "/nope.txt"]).failure(1);
    assert!(missing.starts_with("dfs: cannot get /nope.txt: "), "{missing}");
    assert!(missing.contains("not_found") && missing.contains("dfs ls"), "{missing}");
    assert_eq!(std::fs::read_dir(bench.here.path()).unwrap().count(), 0);

    bench.run(&["get", "../etc/passwd"]).failure(2);
    bench.run(&["mkdir", "/no/such/parent"]).failure(1);
    bench.run(&["rm", "/nope.txt"]).failure(1);
    bench.ok(&["mkdir", "/d"]);
    let directory = bench.run(&["get", "/d"]).failure(1);
    assert!(directory.contains("it is a directory"), "{directory}");
    bench.write("here.txt", b"x");
    bench.run(&["put", "here.txt", "absent.txt", "/d/"]).failure(1);
    assert_eq!(bench.ok(&["ls", "/d"]), "");

    let mut command = bench.command(&["--json", "get", "/nope.txt"]);
    let error: Value = serde_json::from_str(&Ran::of(command.output().unwrap()).failure(1)).unwrap();
    assert_eq!(error["error"]["code"], "not_found");
    bench.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_not_there_is_told_at_once() {
    let mut bench = Bench::new().await;
    bench.cluster.stop_master().await;
    let since = Instant::now();
    let away = bench.run(&["ls"]).failure(1);
    assert!(since.elapsed() < Duration::from_secs(5), "it took {:?}", since.elapsed());
    assert!(away.contains(bench.cluster.master_url()) && away.contains("dfs up"), "{away}");
    bench.run(&["health", bench.cluster.master_url()]).failure(1);
    bench.cluster.start_master().await.unwrap();
    bench.ok(&["health", bench.cluster.master_url()]);
    bench.ok(&["health", bench.cluster.node(0).url()]);
    bench.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_node_ls_show_every_node() {
    let mut bench = Bench::new().await;
    bench.write("a.txt", b"12345");
    bench.ok(&["put", "a.txt"]);
    bench.cluster.add_node().await.unwrap();
    let status = &bench.json(&["status"])[0];
    assert_eq!((&status["files"], &status["file_bytes"]), (&1.into(), &5.into()));
    assert_eq!(status["nodes"].as_array().unwrap().len(), 4);
    let nodes = bench.json(&["node", "ls"]);
    let mut names: Vec<&str> = nodes.iter().map(|n| n["info"]["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["sn1", "sn2", "sn3", "sn4"]);
    assert!(nodes.iter().all(|n| n["info"]["state"] == "live"));
    let text = bench.ok(&["status"]);
    assert!(text.contains("1 file in 1 directory, 5 B") && text.contains("4 of 4 live"), "{text}");
    bench.cluster.stop().await;
}

/// `dfs up` in a process of its own; killed if a test fails.
struct Up {
    child: Child,
    told: Value,
}

impl Up {
    fn start(data: &Path, here: &Path) -> Up {
        let mut command = dfs(here);
        command.args(["--json", "up", "--nodes", "2", "--listen", "127.0.0.1:0", "--data"]).arg(data);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        Up { child, told }
    }

    fn dfs(&self, here: &Path, args: &[&str]) -> Ran {
        let master = self.told["master"].as_str().unwrap();
        Ran::of(dfs(here).args(["--master", master]).args(args).output().unwrap())
    }

    fn interrupt(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // An error means that it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn up_started_again_on_its_data_has_all_the_files() {
    let (data, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(here.path().join("kept.txt"), "kept").unwrap();
    let up = Up::start(data.path(), here.path());
    assert_eq!(up.told["nodes"].as_array().unwrap().len(), 2);
    up.dfs(here.path(), &["put", "kept.txt"]).success();
    // A second one on the same data would ruin it.
    let mut second = dfs(here.path());
    second.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(data.path());
    let refused = Ran::of(second.output().unwrap()).failure(1);
    assert!(refused.contains("in use by a running cluster"), "{refused}");
    assert_eq!(up.interrupt(), Some(0));

    let up = Up::start(data.path(), here.path());
    assert_eq!(up.dfs(here.path(), &["get", "kept.txt", "-"]).success(), "kept");
    assert_eq!(up.interrupt(), Some(0));
}

/// Waits until every copy is whole, and gives the volumes that each node has, by name.
async fn settled(bench: &Bench) -> std::collections::BTreeMap<String, u64> {
    wait_for("every copy whole", COPIES, || async {
        let status = bench.json(&["status"]).remove(0);
        let behind = status["replication"]["volumes_behind"].as_u64().unwrap();
        let named =
            |n: &Value| (n["info"]["name"].as_str().unwrap().to_owned(), n["volumes"].as_u64().unwrap());
        let nodes = status["nodes"].as_array().unwrap().iter().map(named).collect();
        if behind == 0 { Ok(nodes) } else { Err(format!("{behind} volumes behind")) }
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_emptied_while_it_serves_and_then_forgotten() {
    let mut bench = Bench::new().await;
    let content = |n: u8| vec![n; 300_000];
    for n in 0..12 {
        bench.write(format!("f{n}"), &content(n));
        bench.ok(&["put", &format!("f{n}")]);
    }
    let refused = bench.run(&["node", "remove", "sn2"]).failure(1);
    assert!(refused.contains("dfs node drain"), "{refused}");
    assert!(bench.run(&["node", "drain", "sn9"]).failure(1).contains("there are: sn1, sn2, sn3"));

    let told = bench.ok(&["node", "drain", "sn2"]);
    assert!(told.contains("sn2 is empty"), "{told}");
    assert!(bench.ok(&["node", "ls"]).contains("live, draining"));
    assert_eq!(settled(&bench).await["sn2"], 0);
    // What it held it has dropped, and its disk is free again.
    wait_for("the node's copies dropped", COPIES, || async {
        let kept = std::fs::read_dir(bench.cluster.node(1).data_dir().join("segments")).unwrap();
        let blocks: u64 =
            kept.map(|e| std::os::unix::fs::MetadataExt::blocks(&e.unwrap().metadata().unwrap())).sum();
        if blocks * 512 < 300_000 { Ok(()) } else { Err(format!("{blocks} blocks are used")) }
    })
    .await
    .unwrap();
    bench.ok(&["node", "remove", "sn2"]);
    assert!(!bench.ok(&["node", "ls"]).contains("sn2"));
    // It goes on asking, and stays out.
    bench.cluster.stop_node(1).await;
    for n in 0..12 {
        bench.ok(&["get", &format!("f{n}"), "back"]);
        assert_eq!(bench.read("back"), content(n));
        std::fs::remove_file(bench.path("back")).unwrap();
    }
    bench.write("later", b"later");
    bench.ok(&["put", "later"]);
    settled(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn emptying_can_be_undone() {
    let bench = Bench::new().await;
    bench.ok(&["node", "drain", "sn1", "--no-wait"]);
    bench.ok(&["node", "drain", "sn1", "--undo"]);
    assert!(!bench.ok(&["node", "ls"]).contains("draining"));
    wait_for("new volumes on the node", COPIES, || async {
        if settled(&bench).await["sn1"] > 0 { Ok(()) } else { Err("none yet".to_owned()) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_a_dead_node_brings_back_are_given_up_when_there_are_others() {
    let mut bench = Bench::new().await;
    for n in 0..6 {
        bench.write(format!("f{n}"), &vec![n; 200_000]);
        bench.ok(&["put", &format!("f{n}")]);
    }
    settled(&bench).await;
    bench.cluster.stop_node(0).await;
    wait_for("the node dead", COPIES, || async {
        if bench.ok(&["node", "ls"]).contains("dead") { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await
    .unwrap();
    settled(&bench).await;
    bench.cluster.start_node(0).await.unwrap();
    let quick = |n: u8| bench.json(&["stat", &format!("f{n}"), "--quick"]).remove(0);
    wait_for("two copies of everything again", COPIES, || async {
        for n in 0..6 {
            for volume in quick(n)["volumes"].as_array().unwrap() {
                let copies = volume["copies"].as_array().unwrap().len();
                if copies != 2 {
                    return Err(format!("f{n} has {copies} copies"));
                }
            }
        }
        Ok(())
    })
    .await
    .unwrap();
    for n in 0..6 {
        bench.ok(&["get", &format!("f{n}"), "back"]);
        assert_eq!(bench.read("back"), vec![n; 200_000]);
        std::fs::remove_file(bench.path("back")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rebalancing_a_cluster_that_is_even_is_done_at_once() {
    let bench = Bench::new().await;
    let told = bench.ok(&["rebalance"]);
    assert!(told.contains("Done."), "{told}");
    assert_eq!(bench.json(&["rebalance", "--stop"])[0]["running"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_restored_from_what_storage_nodes_keep() {
    let mut bench = Bench::new().await;
    for n in 0..5 {
        bench.write(format!("f{n}"), &vec![n; 100_000]);
        bench.ok(&["put", &format!("f{n}")]);
    }
    assert!(bench.ok(&["backup", "ls"]).contains("No backup so far"));
    let taken = bench.json(&["backup", "now"]).remove(0);
    assert_eq!(taken["nodes"].as_array().unwrap().len(), 3);
    bench.write("after", b"after the backup");
    bench.ok(&["put", "after"]);
    settled(&bench).await;

    let data = bench.cluster.data_dir().join("master");
    let data = data.to_str().unwrap();
    let restore =
        ["backup", "restore", "--data", data, "--node", bench.cluster.node(1).url()].map(str::to_owned);
    let refused = bench.run(&restore).failure(1);
    assert!(refused.contains("move it away first"), "{refused}");
    bench.cluster.stop_master().await;
    for entry in std::fs::read_dir(data).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert!(bench.run(&["backup", "ls"]).failure(1).contains("name storage nodes"));
    let told = bench.ok(&restore);
    assert!(told.contains("dfs-master --data"), "{told}");
    bench.cluster.start_master().await.unwrap();
    for n in 0..5 {
        // Nodes find back by themselves, which takes a heartbeat.
        wait_for("the file", COPIES, || async {
            let ran = bench.run(&["get", &format!("f{n}"), "back"]);
            if ran.code == Some(0) { Ok(()) } else { Err(ran.stderr) }
        })
        .await
        .unwrap();
        assert_eq!(bench.read("back"), vec![n; 100_000]);
        std::fs::remove_file(bench.path("back")).unwrap();
    }
    // What came after the backup is gone, and its numbers are not used again.
    assert!(bench.run(&["get", "after", "back"]).failure(1).contains("not_found"));
    wait_for("new files taken", COPIES, || async {
        let ran = bench.run(&["put", "after"]);
        if ran.code == Some(0) { Ok(()) } else { Err(ran.stderr) }
    })
    .await
    .unwrap();
    bench.ok(&["get", "after", "back"]);
    assert_eq!(bench.read("back"), b"after the backup");
    settled(&bench).await;
}
