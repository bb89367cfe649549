//! The short run: thousands of inputs for each target, the same ones every time.

use bulkhead_fuzz::{Broken, TARGETS, Target, Until, run};

/// `tools/fuzz TARGET 60 4` makes the same inputs.
const SEED: u64 = 4;

fn short(name: &str, inputs: u64, outcomes: usize) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("a target");
    match run(target, SEED, Until::Inputs(inputs), None) {
        Ok(done) => assert!(
            done.outcomes >= outcomes,
            "{done:?}: the inputs are too much alike to show anything"
        ),
        Err(broken) => panic!("{broken}"),
    }
}

#[test]
fn no_command_is_taken_for_less_than_it_is() {
    short("commands", 6_000, 250);
}

#[test]
fn no_line_of_explain_brings_it_down_or_is_allowed_by_its_form() {
    short("calls", 30_000, 50);
}

#[test]
fn no_configuration_is_half_read_or_leads_off_this_machine_unsaid() {
    short("config", 30_000, 50);
}

#[test]
fn no_frame_and_no_kept_text_is_a_yes_but_the_true_one() {
    short("approvals", 30_000, 40);
}

#[test]
fn no_address_has_two_readings_or_leads_beyond_its_rule() {
    short("addresses", 30_000, 40);
}

#[test]
fn what_breaks_is_told_with_its_seed_and_in_short_and_comes_again() {
    let target = Target {
        name: "self",
        check: |input| {
            assert!(!input.windows(2).any(|two| two == b"<>"), "it holds <>");
            String::from_utf8_lossy(&input[..input.len().min(1)]).into_owned()
        },
        seeds: || vec![b"a < b > c".to_vec()],
        words: &[b"<", b">"],
    };
    let told = || match run(&target, 7, Until::Inputs(10_000), None) {
        Err(broken @ Broken::Input { .. }) => broken.to_string(),
        other => panic!("{other:?}"),
    };
    let first = told();
    assert!(first.starts_with("self, seed 7, input "), "{first}");
    assert!(first.contains(": it holds <>\n"), "{first}");
    assert!(first.ends_with("shorter:\n    b\"<>\""), "{first}");
    assert_eq!(told(), first);
}
