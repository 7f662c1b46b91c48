//! Thirty-two clients at once.

use dfs_client::checksum::md5;
use dfs_e2e::{Fleet, Setup, noise};
use std::fs;
use tokio::task::JoinSet;

const CLIENTS: u64 = 32;

/// Files of each client.
const FILES: u64 = 6;

/// The content of a client's file: mostly small, one of several blobs.
fn content(client: u64, n: u64) -> Vec<u8> {
    let length = match n {
        0 => 5 << 20,
        _ => 1 + (client * 37_321 + n * 91_813) % 200_000,
    };
    noise(client * 1000 + n, length as usize)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_clients_put_and_get_at_once_through_http() {
    let fleet = Fleet::start(Setup::default()).await;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let http = fleet.http();
        clients.spawn(async move {
            for n in 0..FILES {
                let target = format!("/files/client-{client}/file-{n}.bin");
                let content = content(client, n);
                let answer = http.put(&target, &content).await.unwrap_or_else(|e| panic!("{target}: {e}"));
                assert_eq!(answer.status, 201, "{target}: {}", answer.text());
                assert_eq!(answer.json()["md5"].as_str().unwrap(), md5(&content).to_string());
                let got = http.get(&target).await.unwrap_or_else(|e| panic!("{target}: {e}"));
                assert_eq!((got.status, got.md5()), (200, md5(&content)), "{target}");
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    // What one stored the others see.
    for client in 0..CLIENTS {
        let target = format!("/files/client-{client}/file-1.bin");
        assert_eq!(fleet.http().get(&target).await.unwrap().md5(), md5(&content(client, 1)));
    }
    assert_eq!(fleet.status().await.unwrap().files, CLIENTS * FILES);
    fleet.wait_replicated().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_threads_put_and_get_at_once_through_a_mount() {
    let mut fleet = Fleet::start(Setup::default()).await;
    let mount = fleet.mount().await;
    let threads: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let folder = mount.join(format!("client-{client}"));
            std::thread::spawn(move || {
                fs::create_dir(&folder).unwrap();
                for n in 0..FILES {
                    let path = folder.join(format!("file-{n}.bin"));
                    let content = content(client, n);
                    fs::write(&path, &content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                    let got = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                    assert_eq!(md5(&got), md5(&content), "{}", path.display());
                }
            })
        })
        .collect();
    let threads =
        tokio::task::spawn_blocking(move || threads.into_iter().map(|t| t.join()).collect::<Vec<_>>());
    for thread in threads.await.unwrap() {
        thread.unwrap();
    }
    fleet.unmount(0);
    // As the cluster has it, not the mount's memory.
    for client in 0..CLIENTS {
        for n in 0..FILES {
            let target = format!("/files/client-{client}/file-{n}.bin");
            let got = fleet.http().get(&target).await.unwrap();
            assert_eq!((got.status, got.md5()), (200, md5(&content(client, n))), "{target}");
        }
    }
    fleet.wait_replicated().await;
}
