//! `bulkhead`: what people type.

fn main() -> std::process::ExitCode {
    cli::run()
}
