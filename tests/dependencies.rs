//! What is depended on, against `deny.toml`: licences, crates that are not wanted, and where crates come from. The
//! same as `cargo deny check licenses bans sources`, for machines without it; advisories need its database.

use std::process::Command;

use serde_json::Value;
use spdx::{Expression, ParseMode};
use toml::Table;

/// The crates of all features and targets, as cargo has resolved them.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].as_array().expect("a list").clone()
}

fn rules(section: &str, list: &str) -> Vec<toml::Value> {
    let rules: Table = include_str!("../deny.toml").parse().expect("deny.toml is TOML");
    rules[section][list].as_array().expect("a list").clone()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().expect("every crate has a name")
}

#[test]
fn every_licence_is_an_allowed_one() {
    let allowed = rules("licenses", "allow");
    let is_allowed = |text: &str| allowed.iter().any(|one| one.as_str() == Some(text));
    let mut wrong = Vec::new();
    for package in packages() {
        let text = package["license"].as_str().unwrap_or("none");
        let permits = Expression::parse_mode(text, ParseMode::LAX).is_ok_and(|licence| {
            licence.evaluate(|one| one.license.id().is_some_and(|id| is_allowed(id.name)))
        });
        if !permits {
            wrong.push(format!("{}: {text}", name(&package)));
        }
    }
    assert!(wrong.is_empty(), "licences that deny.toml does not allow: {wrong:#?}");
}

#[test]
fn no_crate_is_one_that_is_not_wanted() {
    let unwanted: Vec<_> = rules("bans", "deny");
    let found = packages();
    let found = found.iter().map(name);
    let wrong: Vec<_> = found
        .filter(|name| unwanted.iter().any(|one| one["name"].as_str() == Some(name)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_crate_is_of_this_workspace_or_from_the_registry() {
    // What cargo calls it, wherever it gets it from.
    let is_known =
        |source: &str| source.starts_with("registry+") && source.ends_with("/crates.io-index");
    let packages = packages();
    let strange =
        packages.iter().filter(|one| one["source"].as_str().is_some_and(|it| !is_known(it)));
    let strange: Vec<_> = strange.map(name).collect();
    assert!(strange.is_empty(), "{strange:?}");
    // Of the workspace are few: were the sources read wrongly, all would seem to be.
    let own = packages.iter().filter(|one| one["source"].is_null()).count();
    assert_eq!(own, 3);
}
