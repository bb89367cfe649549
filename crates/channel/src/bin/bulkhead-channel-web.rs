//! The program of the web page.

fn main() -> std::process::ExitCode {
    bulkhead_channel::web::run()
}
