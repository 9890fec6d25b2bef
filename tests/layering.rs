//! `src/lib.rs` lists the modules in the order that data flows, and a module imports only what stands above it.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::path::{Path, PathBuf};

fn modules() -> Vec<String> {
    let map = std::fs::read_to_string("src/lib.rs").unwrap();
    map.lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect()
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Module names behind `crate::` in code; tests may reach for what makes them short.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = lines.collect::<Vec<_>>().join("\n");
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => {
                let group = group.split('}').next().unwrap_or_default();
                found.extend(group.split(',').map(|part| name(part.trim())));
            }
            None => found.push(name(rest)),
        }
    }
    found
}

#[test]
fn a_module_imports_only_what_stands_above_it() {
    let order = modules();
    assert!(order.len() > 10, "{order:?}");
    let place = |module: &str| order.iter().position(|other| other == module);
    let mut all = Vec::new();
    files(Path::new("src"), &mut all);
    let mut wrong = Vec::new();
    for file in all {
        let first = file.components().nth(1).unwrap().as_os_str().to_string_lossy().into_owned();
        let module = first.trim_end_matches(".rs").to_owned();
        let Some(own) = place(&module) else { continue };
        // Compiled for tests only.
        if file.ends_with("apply/rehearsal.rs") {
            continue;
        }
        for import in imports(&std::fs::read_to_string(&file).unwrap()) {
            match place(&import) {
                Some(other) if other > own => wrong.push(format!("{}: {import}", file.display())),
                Some(_) => {}
                None => wrong.push(format!("{}: {import} is not in src/lib.rs", file.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "against the flow in src/lib.rs:\n{}", wrong.join("\n"));
}

#[test]
fn an_import_in_a_group_or_in_a_path_is_found() {
    let text = "use crate::{cli, host::Live};\nfn f() { crate::report::x() }\n// crate::nothing\n";
    assert_eq!(imports(text), ["cli", "host", "report"]);
}
