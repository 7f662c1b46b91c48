//! The benchmark does all of its work, small, on this system and on the disk.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn quick_run_measures_every_step_at_every_place_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let json = folder.path().join("results.json");
    let output = Command::new(env!("CARGO_BIN_EXE_dfs-bench"))
        .args(["all", "--quick", "--no-build", "--dir"])
        .arg(folder.path())
        .arg("--json")
        .arg(&json)
        .output()
        .expect("the benchmark can be started");
    let (told, table) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "it ended with {}:\n{told}", output.status);

    let text = std::fs::read_to_string(&json).expect("it keeps its results");
    let session: Value = serde_json::from_str(&text).expect("they are JSON");
    let list = |name: &str| session[name].as_array().cloned().unwrap_or_default();
    let names = |list: &str, field: &str| -> BTreeSet<String> {
        let entries = session[list].as_array().into_iter().flatten();
        entries.filter_map(|entry| entry[field].as_str().map(str::to_owned)).collect()
    };
    let (steps, places) = (names("steps", "id"), names("places", "label"));
    assert_eq!(places, BTreeSet::from(["dfs".to_owned(), "disk".to_owned()]));
    for expected in
        ["write-1m", "read-cold", "random-write-4k", "create", "untar", "git-status-2", "wide-list-1"]
    {
        assert!(steps.contains(expected), "{expected} is not among {steps:?}");
    }
    let mut missing: BTreeSet<(String, String)> =
        steps.iter().flat_map(|step| places.iter().map(|place| (step.clone(), place.clone()))).collect();
    for run in list("runs") {
        let measured = &run["outcome"]["Measured"];
        assert!(measured["seconds"].as_f64().is_some_and(|s| s > 0.0), "not measured: {run}\n{told}");
        missing.remove(&(
            run["step"].as_str().unwrap_or_default().to_owned(),
            run["place"].as_str().unwrap_or_default().to_owned(),
        ));
    }
    assert!(missing.is_empty(), "without a result: {missing:?}");
    let ours =
        list("runs").into_iter().find(|r| r["step"] == "write-1m" && r["place"] == "dfs").expect("it ran");
    for figure in ["cpu_client_s", "cpu_servers_s", "peak_client_mib", "peak_server_mib"] {
        assert!(ours["outcome"]["Measured"][figure].as_f64().is_some_and(|v| v > 0.0), "no {figure}: {ours}");
    }
    assert!(table.contains("| untar 60 files, s |"), "{table}");

    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts can be listed");
    let at = folder.path().to_string_lossy().into_owned();
    assert!(!mounts.contains(&at), "still mounted:\n{mounts}");
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("it is there").flatten().map(|e| e.path()).collect();
    assert_eq!(left, [json]);
}
