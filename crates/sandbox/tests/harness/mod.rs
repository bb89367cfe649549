//! What cargo-nextest asks of a test program that has its own `main`: to list its tests, and
//! to run one of them. (Its documentation, "Custom test harnesses".)

/// What is asked.
pub(crate) enum Asked<'a> {
    /// The names of the tests.
    List,
    /// To run this one.
    One(&'a str),
    /// To run all of them: `cargo test`, which says nothing that matters here.
    All,
}

/// Reads the arguments.
pub(crate) fn asked<'a>(args: &[&'a str]) -> Asked<'a> {
    match *args {
        _ if args.contains(&"--list") => Asked::List,
        ["--exact", name, ..] | [name, "--exact", ..] => Asked::One(name),
        _ => Asked::All,
    }
}

/// Writes the list, unless only tests that are not run by default are asked for: there are none.
pub(crate) fn list<'a>(args: &[&str], names: impl Iterator<Item = &'a str>) {
    if !args.contains(&"--ignored") {
        names.for_each(|name| println!("{name}: test"));
    }
}
