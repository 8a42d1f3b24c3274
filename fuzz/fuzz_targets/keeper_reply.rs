//! The check `keeper_reply` of `tests/fuzz`, driven by libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    (gooselake_fuzz::target("keeper_reply").expect("it is in the table").check)(input);
});
