//! The README shows the configuration keys as the program knows them.

#[test]
fn readme_contains_the_table_of_configuration_keys() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("README.md can be read");
    let table = ringmq::config::markdown_table();
    assert!(
        readme.contains(&table),
        "the table of configuration keys in README.md is not the current one, which is:\n{table}"
    );
}
