//! Invariant 1 of `ARCHITECTURE.md`: the pure modules know no sockets, no clock and no tokio.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules that must stay pure: a file, or a folder with all that is in it.
const PURE: &[&str] = &[
    "resp",
    "command",
    "ring",
    "sequencer",
    "router.rs",
    "request.rs",
    "account.rs",
    "pubsub",
    "limits.rs",
    "pool/recover.rs",
    "pool/table.rs",
];

/// What a pure module may not name.
const BANNED: &[&str] = &[
    "tokio",
    "std::net",
    "std::time",
    "SystemTime",
    "crate::net",
    "crate::node",
    "crate::worker",
    "crate::ingress",
    "crate::stream",
    "crate::shared",
    "crate::pool::open",
    "crate::admin",
    "crate::serve",
];

/// What the data path may not name: it is acted on, it does not act.
const DATA_PATH: &[(&str, &[&str])] = &[
    ("ingress", &["crate::admin", "crate::dev", "pool::open"]),
    ("worker", &["crate::admin", "crate::dev", "pool::open"]),
    ("stream.rs", &["crate::admin", "crate::dev", "pool::open"]),
];

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut found: Vec<PathBuf> = entries.flat_map(|entry| files(&entry.unwrap().path())).collect();
    found.retain(|file| file.extension().is_some_and(|e| e == "rs"));
    found
}

/// The code of a file, without comments and unit tests.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod").next().unwrap_or_default();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn violations(modules: &[&str], banned: &[&str]) -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for module in modules {
        let files = files(&source.join(module));
        assert!(!files.is_empty(), "{module} has no files");
        for file in files
            .iter()
            .filter(|file| !file.ends_with("tests.rs") && !file.ends_with("placement_test.rs"))
            .filter(|file| !file.components().any(|part| part.as_os_str() == "tests"))
        {
            let code = code(file);
            found.extend(
                banned
                    .iter()
                    .filter(|word| code.contains(**word))
                    .map(|w| format!("{}: {w}", file.display())),
            );
        }
    }
    found
}

#[test]
fn pure_modules_are_pure() {
    assert_eq!(violations(PURE, BANNED), Vec::<String>::new());
}

#[test]
fn the_data_path_does_not_know_who_acts_on_it() {
    for (module, banned) in DATA_PATH {
        assert_eq!(violations(&[module], banned), Vec::<String>::new());
    }
}

#[test]
fn a_violation_is_seen() {
    assert!(!violations(&["stream.rs"], &["crate::node"]).is_empty());
}

/// The image is built from a few folders only: what the sources include has to be among them.
#[test]
fn the_image_is_built_from_all_that_it_needs() {
    let (ignored, steps) = (
        fs::read_to_string(".dockerignore").unwrap(),
        fs::read_to_string("Dockerfile").unwrap(),
    );
    let mut found = 0;
    for file in files(Path::new("src")) {
        let text = fs::read_to_string(&file).unwrap();
        for included in text.split("include_str!(\"").skip(1) {
            let path = file.parent().unwrap().join(included.split('"').next().unwrap());
            let path = path.canonicalize().unwrap();
            let path = path.strip_prefix(Path::new(".").canonicalize().unwrap()).unwrap();
            let folder = path.components().next().unwrap().as_os_str().to_str().unwrap();
            assert!(
                ignored.contains(&format!("!{folder}\n")),
                "{folder} is not in .dockerignore"
            );
            assert!(
                steps.contains(&format!("COPY {folder} {folder}\n")),
                "{folder} is not copied in the Dockerfile"
            );
            found += 1;
        }
    }
    assert!(found > 3);
}
