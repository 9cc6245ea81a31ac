//! The invariants of ARCHITECTURE.md that a machine can check.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The workspace's packages, as cargo describes them.
fn packages() -> Vec<Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let mut metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].take();
    let Value::Array(packages) = packages else { panic!("{packages}") };
    assert!(packages.len() >= 8);
    packages
}

/// The files, or those under a folder, in which one of the texts stands.
fn files_with(texts: &[&str], under: &Path) -> Vec<String> {
    let output = Command::new("git")
        .args(["grep", "--files-with-matches", "--fixed-strings"])
        .args(texts.iter().flat_map(|text| ["-e", text]))
        .args(["--", "*.rs"])
        .current_dir(under)
        .output()
        .unwrap();
    // 1 where there are none; anything else, outside a check-out for one, is no answer.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)), "git grep: {}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Each workspace package's dependencies, dev-dependencies left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    packages()
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let names = dependencies
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| dependency["name"].as_str().unwrap().to_owned());
            (package["name"].as_str().unwrap().to_owned(), names.collect())
        })
        .collect()
}

fn within(names: &BTreeSet<String>) -> BTreeSet<&str> {
    names.iter().map(String::as_str).filter(|name| name.starts_with("nsmc-")).collect()
}

#[test]
fn crates_depend_on_each_other_as_the_architecture_says() {
    let allowed: [(&str, &[&str]); 12] = [
        ("nsmc-features", &[]),
        ("nsmc-baselines", &[]),
        ("nsmc-experiment", &[]),
        ("nsmc-data", &[]),
        ("nsmc-ops", &[]),
        ("nsmc-bert", &["nsmc-ops"]),
        ("nsmc-eval", &["nsmc-experiment"]),
        ("nsmc-report", &["nsmc-eval", "nsmc-experiment"]),
        ("nsmc-peft", &["nsmc-bert", "nsmc-ops"]),
        (
            "nsmc-training",
            &["nsmc-bert", "nsmc-data", "nsmc-eval", "nsmc-experiment", "nsmc-ops", "nsmc-peft"],
        ),
        (
            "nsmc-cli",
            &[
                "nsmc-baselines",
                "nsmc-bert",
                "nsmc-data",
                "nsmc-eval",
                "nsmc-experiment",
                "nsmc-peft",
                "nsmc-training",
            ],
        ),
        ("xtask", &["nsmc-eval", "nsmc-experiment", "nsmc-report"]),
    ];
    let found = dependencies();
    assert_eq!(found.len(), allowed.len(), "a new crate needs its place in the architecture");
    for (name, allowed) in allowed {
        assert_eq!(within(&found[name]), allowed.iter().copied().collect(), "{name}");
    }
}

#[test]
fn only_the_tensor_crates_link_burn() {
    for (name, dependencies) in dependencies() {
        let links = dependencies.contains("burn");
        let may = ["nsmc-ops", "nsmc-data", "nsmc-bert", "nsmc-peft", "nsmc-training", "nsmc-cli"];
        assert_eq!(links, may.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn ci_tests_every_crate_that_has_tests() {
    let has_tests = |package: &Value| {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        !files_with(&["#[test]"], manifest.parent().unwrap()).is_empty()
    };
    let packages = packages();
    let name = |package: &Value| package["name"].as_str().unwrap().to_owned();
    let tested: BTreeSet<String> =
        packages.iter().filter(|package| has_tests(package)).map(name).collect();
    assert_eq!(crate::ci::CRATES.map(str::to_owned).into_iter().collect::<BTreeSet<_>>(), tested);
    // It has no code, and so nothing to test.
    let untested = packages.iter().map(name).filter(|name| !tested.contains(name));
    assert_eq!(untested.collect::<Vec<_>>(), ["nsmc-features"]);
}

/// What code is unsafe by, and what allows it.
const UNSAFE: [&str; 7] = [
    "unsafe_code",
    "unsafe {",
    "unsafe fn",
    "unsafe impl",
    "unsafe trait",
    "unsafe extern",
    "#[unsafe(",
];

/// Elsewhere the workspace's lints refuse it, unless they are told not to.
#[test]
fn unsafe_code_is_in_these_modules_alone() {
    for code in
        ["#[allow(unsafe_code)]", "    unsafe_code,", "pub unsafe fn f(", "= unsafe { f() };"]
    {
        assert!(UNSAFE.iter().any(|text| code.contains(text)), "{code}");
    }
    let workspace = crate::workspace::Workspace::find();
    let mut found = files_with(&UNSAFE, &workspace.root);
    found.retain(|path| path != "xtask/src/tidy.rs");
    let ops = ["amx", "avx2", "avx512", "matrix", "parallel"];
    let ops = ops.map(|module| format!("crates/ops/src/{module}.rs"));
    assert_eq!(found[0], "crates/cli/src/allocator.rs");
    assert_eq!(found[1..], ops);
}

#[test]
fn every_profile_resolves_for_each_of_its_cells() {
    let workspace = crate::workspace::Workspace::find();
    let mut resolved = 0;
    for entry in fs_err::read_dir(workspace.root.join("configs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let profile = workspace.profile(&name).unwrap();
        for cell in profile.cells.iter().chain(&profile.baselines) {
            workspace
                .with_catalog(|catalog| Ok(profile.resolve(cell, 0, &[], catalog)?))
                .unwrap_or_else(|error| panic!("{name}: {error:#}"));
            resolved += 1;
        }
    }
    assert!(resolved > 3);
}
