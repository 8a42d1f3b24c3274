//! The check `acp` of `tests/fuzz`, driven by libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    (gooselake_fuzz::target("acp").expect("it is in the table").check)(input);
});
