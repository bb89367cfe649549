//! The list of system calls of a container around a box, in the form that container engines take.
//!
//! It is the list of the program that builds boxes, from the same data. Inside of it the box has its
//! own, exact and shorter.

use serde_json::{Value, json};

use crate::confine::Program;
use crate::profiles::{self, Calls, Rule, Test};

/// JSON as in the engines' seccomp profiles (their documentation, and libseccomp's seccomp_rule_add(3)).
pub fn profile() -> Result<String, String> {
    let Calls::Only { allowed, absent } = profiles::of(Program::Sandbox).calls else {
        return Err("the program that builds boxes has no list of system calls".to_owned());
    };
    let allowed = allowed.iter().copied().flatten();
    let mut rules = allowed.map(allow).collect::<Result<Vec<_>, _>>()?;
    for (list, number) in absent {
        let names: Vec<_> = list.iter().map(|rule| name(rule)).collect();
        rules.push(json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number }));
    }
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": [ARCHITECTURE],
        "syscalls": rules,
    });
    Ok(profile.to_string())
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &str = "SCMP_ARCH_X86_64";
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &str = "SCMP_ARCH_AARCH64";

/// One rule; several of the same call are alternatives, as in the data.
fn allow(rule: &Rule) -> Result<Value, String> {
    let tests = match rule.when {
        [] => Vec::new(),
        [tests] => tests.iter().map(test).collect::<Result<Vec<_>, _>>()?,
        _ => return Err(format!("{} has alternatives within a rule", rule.name)),
    };
    // Of two tests of one argument the engines make alternatives, so the later is left to the box' own list.
    let mut arguments: Vec<Value> = Vec::new();
    for test in tests {
        if arguments
            .iter()
            .all(|earlier| earlier["index"] != test["index"])
        {
            arguments.push(test);
        }
    }
    Ok(json!({ "names": [name(rule)], "action": "SCMP_ACT_ALLOW", "args": arguments }))
}

/// Of the lower 32 bits, which are what the kernel reads.
fn test(test: &Test) -> Result<Value, String> {
    let masked = |index: u8, mask: u32, value: u32| json!({ "index": index, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": value });
    Ok(match *test {
        Test::Is(index, value) => masked(index, u32::MAX, value),
        Test::Clear(index, mask) => masked(index, mask, 0),
        Test::Set(index, mask) => masked(index, mask, mask),
        Test::Bits(index, mask, value) => masked(index, mask, value),
        // There is no masked form of it; the box' own list looks at the lower half.
        Test::Not(index, value) => json!({ "index": index, "op": "SCMP_CMP_NE", "value": value }),
        Test::Own(_) => {
            return Err("a process id cannot be known before the container is".to_owned());
        }
    })
}

fn name(rule: &Rule) -> &'static str {
    rule.name.trim_start_matches("SYS_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_on_the_list_of_the_builder_is_not_on_the_containers() {
        let profile: Value = serde_json::from_str(&profile().unwrap()).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let allowed = |call: &str| {
            profile["syscalls"].as_array().unwrap().iter().any(|rule| {
                rule["action"] == "SCMP_ACT_ALLOW"
                    && rule["names"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|name| name == call)
            })
        };
        for call in [
            "bpf",
            "ptrace",
            "keyctl",
            "init_module",
            "setns",
            "io_uring_setup",
            "kexec_load",
        ] {
            assert!(!allowed(call), "{call}");
        }
        for call in ["read", "execve", "mount", "pivot_root"] {
            assert!(allowed(call), "{call}");
        }
    }

    #[test]
    fn tests_of_arguments_are_kept() {
        let profile = profile().unwrap();
        let clone: Value = serde_json::from_str(&profile).unwrap();
        let rules = clone["syscalls"].as_array().unwrap();
        let prctl = rules.iter().filter(|rule| rule["names"][0] == "prctl");
        assert!(prctl.clone().count() > 10);
        assert!(
            prctl
                .clone()
                .all(|rule| rule["args"][0]["op"] == "SCMP_CMP_MASKED_EQ")
        );
    }
}
