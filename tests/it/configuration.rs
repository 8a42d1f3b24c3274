//! The page of the configuration has every key that a file can have, and no other.

use std::collections::{BTreeMap, BTreeSet};

const SOURCE: &str = include_str!("../../src/config/file.rs");
const PAGE: &str = include_str!("../../docs/CONFIGURATION.md");

/// The structs of the file with their fields: `(name, type)`.
fn structs() -> BTreeMap<&'static str, Vec<(&'static str, &'static str)>> {
    let mut structs = BTreeMap::new();
    for behind in SOURCE.split("pub struct ").skip(1) {
        let (name, rest) = behind.split_once(" {").unwrap();
        let body = rest.split("\n}").next().unwrap();
        let fields = body.lines().filter_map(|line| line.trim().strip_prefix("pub "));
        let pairs = fields.map(|field| field.trim_end_matches(',').split_once(": ").unwrap());
        structs.insert(name, pairs.collect());
    }
    structs
}

/// The keys below a struct, as the page writes them.
fn keys(of: &str, before: &str, into: &mut BTreeSet<String>) {
    let structs = structs();
    for (name, sort) in &structs[of] {
        let sort = sort.strip_prefix("Option<").map_or(*sort, |s| s.trim_end_matches('>'));
        let (inner, between) = if let Some(rest) = sort.strip_prefix("BTreeMap<String, ") {
            (rest.trim_end_matches('>'), ".<name>.")
        } else if let Some(rest) = sort.strip_prefix("Vec<") {
            (rest.trim_end_matches('>'), "[].")
        } else {
            (sort, ".")
        };
        match structs.contains_key(inner) {
            true => keys(inner, &format!("{before}{name}{between}"), into),
            false => drop(into.insert(format!("{before}{name}"))),
        }
    }
}

#[test]
fn the_page_of_the_configuration_has_every_key_and_no_other() {
    let mut known = BTreeSet::new();
    keys("File", "", &mut known);
    assert!(known.len() > 90, "{known:?}");
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let told: BTreeSet<String> = rows.map(str::to_owned).collect();
    let missing: Vec<_> = known.difference(&told).collect();
    let invented: Vec<_> = told.difference(&known).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "missing {missing:?}, too many {invented:?}"
    );
}
