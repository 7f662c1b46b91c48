//! Names that are hard to get right, and names that lead elsewhere.

use dfs_e2e::{Answer, Fleet, Http, Setup, noise, percent_encoded};
use std::fs;
use std::path::Path;

/// In the names of files that must not come to be anywhere outside.
const MARK: &str = "dfs-escape-attempt";

fn names_to_keep() -> Vec<String> {
    vec![
        "Makefile".into(),
        ".profile".into(),
        "say \"hello\".txt".into(),
        "\"".into(),
        "it's.txt".into(),
        "'; DROP TABLE inode; --".into(),
        "back\\slash?query#fragment%41 and spaces".into(),
        "tab\tand\nnewline".into(),
        format!("{}x", "é".repeat(127)),
        format!("{}.txt", "語".repeat(83)),
    ]
}

async fn stored_as(http: &Http, name: &str, content: &[u8]) -> String {
    let answer = http.put(&format!("/files/{}", percent_encoded(name.as_bytes())), content).await.unwrap();
    assert_eq!(answer.status, 201, "{name}: {}", answer.text());
    answer.json()["stored_as"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_and_empty_files_are_kept_as_they_are_by_every_way_in_and_out() {
    let mut fleet = Fleet::start(Setup::default()).await;
    let (client, http) = (fleet.client().await, fleet.http());
    let mount = fleet.mount().await;
    let mut expected = Vec::new();
    for (i, name) in names_to_keep().into_iter().enumerate() {
        assert!(name.len() <= 255);
        let content = noise(i as u64, 500 + i);
        assert_eq!(stored_as(&http, &name, &content).await, name);
        // Once more: the first one stays, and the second name is valid too.
        let other = noise(100 + i as u64, 700);
        let numbered = stored_as(&http, &name, &other).await;
        assert_ne!(numbered, name);
        assert!(numbered.len() <= 255 && numbered.contains("-1"), "{numbered}");
        expected.push((name, content));
        expected.push((numbered, other));
    }
    assert_eq!(stored_as(&http, "empty", &[]).await, "empty");
    expected.push(("empty".into(), Vec::new()));
    client.put("empty too", Vec::new()).await.unwrap();
    expected.push(("empty too".into(), Vec::new()));

    for (name, content) in &expected {
        let answer = http.get(&format!("/files/{}", percent_encoded(name.as_bytes()))).await.unwrap();
        assert!(answer.status == 200 && answer.body == *content, "{name}: {}", answer.status);
        assert!(client.get(name).await.unwrap() == *content, "{name}");
        assert!(fs::read(mount.join(name)).unwrap() == *content, "{name}");
    }
    let mut listed: Vec<String> =
        fs::read_dir(&mount).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let mut names: Vec<String> = expected.into_iter().map(|(name, _)| name).collect();
    listed.sort();
    names.sort();
    assert_eq!(listed, names);
    fleet.unmount(0);
}

/// Files and folders below `folder` whose names have the mark.
fn marked(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(MARK) {
            found.push(entry.path().display().to_string());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            marked(&entry.path(), found);
        }
    }
}

fn refused(target: &str, answer: &Answer) {
    assert!((400..500).contains(&answer.status), "{target}: {answer:?}");
    assert!(!answer.error().message.is_empty(), "{target}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_that_lead_outside_are_refused_and_touch_nothing() {
    let fleet = Fleet::start(Setup::default()).await;
    let http = fleet.http();
    let targets = [
        format!("/files/../{MARK}"),
        format!("/files/../../../../../../tmp/{MARK}"),
        format!("/files/%2e%2e/{MARK}"),
        format!("/files/%2E./.%2e/{MARK}"),
        format!("/files/a/../{MARK}"),
        format!("/files/a/..%2f..%2f{MARK}"),
        format!("/files/..%2F{MARK}"),
        format!("/files/%2Ftmp%2F{MARK}"),
        format!("/files/./{MARK}"),
        format!("/files/{MARK}%00.txt"),
        format!("/files/{MARK}/.."),
        format!("/files/..\\..\\{MARK}/.."),
        format!("/../tmp/{MARK}"),
        format!("//tmp/{MARK}"),
        format!("/tmp/{MARK}"),
    ];
    for target in &targets {
        for method in ["PUT", "GET", "DELETE"] {
            let body: &[u8] = if method == "PUT" { b"escaped" } else { b"" };
            refused(target, &http.request(method, target, &[], body).await.unwrap());
        }
    }
    for node in &fleet.nodes {
        let node = Http::new(&node.url);
        for target in [format!("/v1/blobs/../{MARK}"), format!("/v1/blobs/%2e%2e%2f%2e%2e/{MARK}")] {
            refused(&target, &node.put(&target, b"escaped").await.unwrap());
        }
    }
    let mut found = Vec::new();
    marked(fleet.folder(), &mut found);
    for folder in ["/", "/tmp", "/etc", "."] {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let escaped = entries.filter(|e| e.file_name().to_string_lossy().contains(MARK));
        found.extend(escaped.map(|e| e.path().display().to_string()));
    }
    assert_eq!(found, Vec::<String>::new());
    let root = http.get("/files/").await.unwrap();
    assert_eq!(root.json()["entries"].as_array().unwrap().len(), 0, "{}", root.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_with_empty_parts_stays_in_the_namespace() {
    let fleet = Fleet::start(Setup::default()).await;
    let http = fleet.http();
    let answer = http.put(&format!("/files//tmp/{MARK}"), b"inside").await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(http.get(&format!("/files/tmp/{MARK}")).await.unwrap().body, b"inside");
    assert!(!Path::new("/tmp").join(MARK).exists());
}
