//! Clients that store the same name.

use dfs_e2e::{Client, Fleet, Http, Setup, noise};

/// Names that two clients fight for.
const ROUNDS: u64 = 200;

/// Stores through the gateway; returns the name that the file got and whether it is another one.
async fn put_by_http(http: &Http, name: &str, content: &[u8]) -> (String, bool) {
    let answer = http.put(&format!("/files/{name}"), content).await.unwrap();
    assert_eq!(answer.status, 201, "{name}: {}", answer.text());
    let told = answer.json();
    (told["stored_as"].as_str().unwrap().to_owned(), told["renamed"].as_bool().unwrap())
}

async fn put_by_session(client: &Client, name: &str, content: &[u8]) -> (String, bool) {
    let stored = client.put(name, content.to_vec()).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    (stored.name.to_string(), stored.renamed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_store_one_name_at_once_both_are_kept_and_one_is_renamed() {
    let fleet = Fleet::start(Setup::default()).await;
    let (first, second, http) = (fleet.client().await, fleet.client().await, fleet.http());
    for round in 0..ROUNDS {
        let name = format!("same-{round}.txt");
        // Of one length, so that only the bytes tell them apart.
        let contents = [noise(2 * round, 3000), noise(2 * round + 1, 3000)];
        let (one, other) = tokio::join!(put_by_session(&first, &name, &contents[0]), async {
            match round % 2 {
                0 => put_by_session(&second, &name, &contents[1]).await,
                _ => put_by_http(&http, &name, &contents[1]).await,
            }
        });
        let stored = [one, other];
        assert_eq!(stored.iter().filter(|(_, renamed)| *renamed).count(), 1, "{stored:?}");
        for ((got_name, renamed), content) in stored.iter().zip(&contents) {
            let expected = if *renamed { format!("same-{round}-1.txt") } else { name.clone() };
            assert_eq!(*got_name, expected);
            assert!(first.get(got_name).await.unwrap() == *content, "{got_name} has other bytes");
        }
    }
    let status = fleet.status().await.unwrap();
    assert_eq!(status.files, 2 * ROUNDS);
}
