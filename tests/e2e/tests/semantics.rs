//! Holds docs/SEMANTICS.md to the tests: every promise there is the doc comment of a test that exists.
//!
//! A promise is a paragraph whose last line is `— test_name in path`. With `DFS_UPDATE_DOCS=1` the paragraphs
//! are written again from the tests; which promises there are, and in which order, stays.

use std::path::{Path, PathBuf};

const LINE_CHARS_MAX: usize = 110;

/// Fewest promises that the page can be expected to make: a page that could not be read would make none.
const PROMISES_MIN: usize = 20;

struct Promise {
    text: String,
    test: String,
    path: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The promise that a paragraph makes, if it makes one.
fn promise(paragraph: &str) -> Option<Promise> {
    let (text, source) = paragraph.rsplit_once("\n— ")?;
    let (test, path) = source.trim().split_once(" in ")?;
    let bare = |s: &str| s.trim_matches('`').to_owned();
    Some(Promise { text: flowed(text.lines()), test: bare(test), path: bare(path) })
}

/// Lines as one, with single blanks.
fn flowed<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always a line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > LINE_CHARS_MAX {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// The doc comment of the test `name` in `source`; `None` when there is no such test.
fn doc_comment(source: &str, name: &str) -> Option<String> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let is_it = |line: &&str| {
        let line = line.trim_start_matches("pub ").trim_start_matches("async ");
        line.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name)).is_some_and(|r| r.starts_with('('))
    };
    let at = lines.iter().position(is_it)?;
    let above = lines[..at].iter().rev().take_while(|l| l.starts_with("///") || l.starts_with("#["));
    let mut above: Vec<&str> = above.copied().collect();
    above.reverse();
    if !above.iter().any(|l| l.starts_with("#[") && l.contains("test")) {
        return None;
    }
    Some(flowed(above.iter().filter_map(|l| l.strip_prefix("///"))))
}

#[test]
fn every_promise_is_the_doc_comment_of_a_test() {
    let page_path = root().join("docs/SEMANTICS.md");
    let page = std::fs::read_to_string(&page_path).expect("docs/SEMANTICS.md can be read");
    let (mut wrong, mut written, mut promises) = (Vec::new(), Vec::new(), 0);
    for paragraph in page.split("\n\n") {
        let Some(promise) = promise(paragraph) else {
            written.push(paragraph.to_owned());
            continue;
        };
        promises += 1;
        let Promise { text, test, path } = promise;
        let source = std::fs::read_to_string(root().join(&path)).unwrap_or_default();
        match doc_comment(&source, &test) {
            None => wrong.push(format!("there is no test `{test}` in {path}")),
            Some(doc) if doc.is_empty() => wrong.push(format!("`{test}` in {path} has no doc comment")),
            Some(doc) => {
                if doc != text {
                    wrong.push(format!("`{test}` in {path} says:\n  {doc}\nthe page says:\n  {text}"));
                }
                let end = if paragraph.ends_with('\n') { "\n" } else { "" };
                written.push(format!("{}\n— `{test}` in `{path}`{end}", wrapped(&doc)));
                continue;
            }
        }
        written.push(paragraph.to_owned());
    }
    if std::env::var_os("DFS_UPDATE_DOCS").is_some() {
        std::fs::write(&page_path, written.join("\n\n")).expect("docs/SEMANTICS.md can be written");
        wrong.retain(|w| !w.contains("the page says"));
    }
    assert!(wrong.is_empty(), "{}\n(DFS_UPDATE_DOCS=1 writes the page again)", wrong.join("\n"));
    assert!(promises >= PROMISES_MIN, "only {promises} promises were found on the page");
}

#[test]
fn doc_comments_are_found_above_their_tests() {
    let source = "/// First\n/// line.\n#[tokio::test]\nasync fn a() {}\n/// No test.\nfn b() {}\n#[test]\nfn c() {}\n";
    assert_eq!(doc_comment(source, "a").as_deref(), Some("First line."));
    assert_eq!(doc_comment(source, "b"), None);
    assert_eq!(doc_comment(source, "c").as_deref(), Some(""));
    assert_eq!(doc_comment(source, "d"), None);
}
