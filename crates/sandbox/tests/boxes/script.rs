//! Programs that were understood, started in the box without a shell.

use protocol::call::{Action, WorkspacePath};
use protocol::runner::{RunEnd, RunOutcome};
use protocol::script::{Place, Redirection, Script, Simple, Step, Stream, Target, When};

use crate::Test;
use crate::host::Host;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_script_is_run_by_its_words_with_its_pipes_and_no_shell",
        a_script_is_run_by_its_words_with_its_pipes_and_no_shell,
    ),
    (
        "a_redirection_of_a_script_writes_below_the_workspace_and_through_no_link",
        a_redirection_of_a_script_writes_below_the_workspace_and_through_no_link,
    ),
    (
        "a_script_with_an_empty_part_is_refused_before_there_is_a_box",
        a_script_with_an_empty_part_is_refused_before_there_is_a_box,
    ),
];

fn simple(argv: &[&str]) -> Simple {
    Simple::plain(argv.iter().map(|word| (*word).to_owned()).collect())
}

fn step(pipeline: Vec<Simple>) -> Step {
    Step {
        when: When::Always,
        pipeline,
    }
}

fn run(host: &Host, steps: Vec<Step>) -> RunOutcome {
    let script = Script { steps };
    host.run(host.job(Action::Script { script })).unwrap()
}

fn a_script_is_run_by_its_words_with_its_pipes_and_no_shell(host: &Host) {
    let outcome = run(
        host,
        vec![
            step(vec![
                simple(&["printf", "%s\\n", "b", "$HOME `id` *", "a"]),
                simple(&["sort"]),
            ]),
            step(vec![simple(&["cat"]), simple(&["wc", "-c"])]),
            step(vec![simple(&["no-such-program-anywhere"])]),
        ],
    );
    assert_eq!(outcome.stdout, "$HOME `id` *\na\nb\n0\n", "{outcome:?}");
    assert!(
        outcome.stderr.contains("no-such-program-anywhere"),
        "{outcome:?}"
    );
    assert_eq!(outcome.end, RunEnd::Exited { code: 127 });
    // The same confinement as any other command's.
    let alone = host.argv(&["cat", "/proc/self/status"]);
    let piped = run(
        host,
        vec![step(vec![
            simple(&["cat", "/proc/self/status"]),
            simple(&["cat"]),
        ])],
    );
    let confinement = |outcome: &RunOutcome| {
        let mut lines: Vec<_> = outcome.stdout.lines().map(str::to_owned).collect();
        lines.retain(|line| {
            ["Cap", "NoNewPrivs", "Seccomp:", "Uid"]
                .iter()
                .any(|name| line.starts_with(name))
        });
        lines
    };
    assert_eq!(confinement(&alone).len(), 8, "{alone:?}");
    assert_eq!(confinement(&alone), confinement(&piped));
    assert_eq!(alone.receipt, piped.receipt);
}

fn a_redirection_of_a_script_writes_below_the_workspace_and_through_no_link(host: &Host) {
    let into = |name: &str| {
        let path = WorkspacePath::parse(name).unwrap();
        let mut echo = simple(&["echo", "text"]);
        echo.redirections.push(Redirection {
            stream: Stream::Output,
            to: Target::Write {
                file: Place::Workspace { path },
            },
        });
        run(host, vec![step(vec![echo])])
    };
    let outcome = into("script-wrote");
    assert_eq!(outcome.end, RunEnd::Exited { code: 0 }, "{outcome:?}");
    let written = host.workspace.path().join("script-wrote");
    assert_eq!(std::fs::read_to_string(&written).unwrap(), "text\n");
    let link = host.workspace.path().join("script-link");
    // Left over from the run of another user.
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink("script-wrote", &link).unwrap();
    let outcome = into("script-link");
    assert_eq!(outcome.end, RunEnd::Exited { code: 1 }, "{outcome:?}");
    assert!(outcome.stderr.contains("symbolic link"), "{outcome:?}");
}

fn a_script_with_an_empty_part_is_refused_before_there_is_a_box(host: &Host) {
    for steps in [
        vec![],
        vec![step(vec![])],
        vec![step(vec![simple(&[])])],
        vec![step(vec![simple(&["true"]), simple(&[""])])],
        vec![step(vec![simple(&["echo", "a\0b"])])],
    ] {
        let script = Script { steps };
        let refused = host.run(host.job(Action::Script { script })).unwrap_err();
        assert!(refused.reason.contains("empty"), "{refused:?}");
    }
}
