//! Plays an attacker inside one program's confinement.

fn main() -> std::process::ExitCode {
    intruder::run()
}
