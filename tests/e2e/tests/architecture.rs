//! Holds the workspace to docs/ARCHITECTURE.md: which package may use which, and who may name what.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn dependencies_are_those_of_the_table() {
    let table = table(&architecture_page());
    let mut wrong = Vec::new();
    for package in packages() {
        let Some(row) = table.get(&package.name) else {
            wrong.push(format!("{} has no row in the table", package.name));
            continue;
        };
        if row.folder != package.folder {
            wrong.push(format!("{} is in {}, the table says {}", package.name, package.folder, row.folder));
        }
        let own = package.dependencies.iter().filter(|d| d.starts_with("dfs-"));
        wrong.extend(own.filter(|d| !row.may_use.contains(*d)).map(|d| format!("{} uses {d}", package.name)));
    }
    assert!(wrong.is_empty(), "not as docs/ARCHITECTURE.md has it:\n{}", wrong.join("\n"));
}

#[test]
fn the_table_lists_packages_that_exist_and_allows_no_cycle() {
    let table = table(&architecture_page());
    let there: BTreeSet<String> = packages().into_iter().map(|p| p.name).collect();
    let listed: BTreeSet<String> = table.keys().cloned().collect();
    assert_eq!(listed, there);
    // Taking away packages whose dependencies are all gone has to take away all of them.
    let mut left = table;
    while !left.is_empty() {
        let before = left.len();
        let names: BTreeSet<String> = left.keys().cloned().collect();
        left.retain(|_, row| row.may_use.iter().any(|d| names.contains(d)));
        assert!(left.len() < before, "the table allows a cycle among {names:?}");
    }
}

#[test]
fn only_their_owners_name_foreign_crates() {
    let rules = absences(&architecture_page());
    let packages = packages();
    let mut wrong = Vec::new();
    for (foreign, owners) in &rules {
        for package in packages.iter().filter(|p| !owners.contains(&p.name)) {
            if package.dependencies.contains(&foreign.replace('_', "-")) {
                wrong.push(format!("{} depends on {foreign}", package.name));
            }
            for source in sources(&package.root.join("src")) {
                let text = std::fs::read_to_string(&source).expect("a source file can be read");
                let naming = text.lines().enumerate().filter(|(_, line)| names_crate(line, foreign));
                // A module of the file's own that has the crate's name is not the crate.
                for (at, line) in naming.filter(|_| !declares_module(&text, foreign)) {
                    wrong.push(format!("{}:{} names {foreign}: {line}", source.display(), at + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "the Absences of docs/ARCHITECTURE.md do not hold:\n{}", wrong.join("\n"));
}

#[test]
fn the_page_is_understood() {
    let page = architecture_page();
    assert!(table(&page)["dfs-cli"].may_use.contains("dfs-cluster"));
    assert!(table(&page)["dfs-proto"].may_use.is_empty());
    let rules = absences(&page);
    for foreign in ["fuser", "reqwest", "redis", "rusqlite", "actix_web"] {
        assert!(rules.contains_key(foreign), "no rule says who may name {foreign}");
    }
    assert_eq!(rules["fuser"], BTreeSet::from(["dfs-bench".to_owned(), "dfs-mount".to_owned()]));
    assert!(rules["actix_web"].len() > 1);
}

#[test]
fn crate_names_are_told_from_words() {
    assert!(names_crate("use redis::Client;", "redis"));
    assert!(names_crate("    let c = redis::Client::open(url)?;", "redis"));
    assert!(names_crate("use actix_web as web;", "actix_web"));
    assert!(!names_crate("    pub redis: Option<String>,", "redis"));
    assert!(!names_crate("    // redis::Client is elsewhere", "redis"));
    assert!(!names_crate("use dfs_queue::redis::RedisQueue;", "redis"));
    assert!(!names_crate("use fuser_like::Thing;", "fuser"));
    assert!(declares_module("//! Page\npub mod redis;\n", "redis"));
    assert!(!declares_module("mod redis_server;", "redis"));
}

struct Package {
    name: String,
    root: PathBuf,
    folder: String,
    dependencies: BTreeSet<String>,
}

struct Row {
    folder: String,
    may_use: BTreeSet<String>,
}

fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("tests/e2e is two folders down").to_owned()
}

fn architecture_page() -> String {
    std::fs::read_to_string(workspace().join("docs/ARCHITECTURE.md")).expect("the page is there")
}

/// The workspace's packages with the dependencies of what they ship; those of their tests do not count.
fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(workspace())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    packages.iter().map(package).collect()
}

fn package(entry: &Value) -> Package {
    let manifest = Path::new(entry["manifest_path"].as_str().expect("a path"));
    let root = manifest.parent().expect("a manifest is in a folder").to_owned();
    let folder = root.strip_prefix(workspace()).expect("members are inside").display().to_string();
    let dependencies = entry["dependencies"].as_array().expect("a list of dependencies");
    let shipped = dependencies.iter().filter(|d| d["kind"] != "dev");
    Package {
        name: entry["name"].as_str().expect("a name").to_owned(),
        root,
        folder,
        dependencies: shipped.map(|d| d["name"].as_str().expect("a name").to_owned()).collect(),
    }
}

/// The rows of the table: | `dfs-x` | `folder` | what it owns | a, b, c |
fn table(page: &str) -> BTreeMap<String, Row> {
    let rows = page.lines().filter(|line| line.starts_with("| `dfs-"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, folder, _, may_use] = cells[..] else { panic!("a row has four cells: {line}") };
        let may_use = may_use.split(',').map(str::trim).filter(|d| *d != "-");
        let row = Row {
            folder: folder.trim_matches('`').to_owned(),
            may_use: may_use.map(|d| format!("dfs-{d}")).collect(),
        };
        (name.trim_matches('`').to_owned(), row)
    })
    .collect()
}

/// The clauses "only `dfs-a` and `dfs-b` name `foreign`" of the section on absences.
fn absences(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (_, section) = page.split_once("## Absences").expect("the page has the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    // A clause may go on in the next line.
    let section = section.split_whitespace().collect::<Vec<_>>().join(" ");
    let clauses = section.split([';', '.']).filter(|c| c.to_lowercase().contains("only `dfs-"));
    clauses
        .map(|clause| {
            let mut quoted: Vec<&str> = clause.split('`').skip(1).step_by(2).collect();
            let foreign = quoted.pop().expect("a clause names something").to_owned();
            (foreign, quoted.into_iter().map(str::to_owned).collect())
        })
        .collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found = Vec::new();
    for path in entries.map(|e| e.expect("a folder can be listed").path()) {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// Whether the file has a module `name` of its own.
fn declares_module(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let declared = line.trim().trim_start_matches("pub ").strip_prefix("mod ");
        declared.is_some_and(|rest| rest.trim_end_matches([';', '{', ' ']) == name)
    })
}

/// Whether the code of `line` names the crate, as `use x`, `x::..` or `extern crate x`; a module of the same
/// name within another path is not it.
fn names_crate(line: &str, name: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].trim_end();
        let after = &code[at + name.len()..];
        let whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
            && !after.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let imported = before.ends_with("use") || before.ends_with("crate");
        whole && (after.starts_with("::") || imported)
    })
}
