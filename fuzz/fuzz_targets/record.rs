//! Fuzzes the TLS record reader.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| standpipe::proto::record::exercise(data));
