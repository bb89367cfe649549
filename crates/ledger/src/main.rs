//! `bulkhead-ledger`, the only writer and signer of the record. See [`bulkhead_ledger::program`].

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_ledger::program::run()
}
