//! Any body as any answer of a tenant: series, a failure with a name, or nothing; never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vouch_collector::source::dynatrace::read_anything;

fuzz_target!(|bytes: &[u8]| read_anything(bytes));
