//! The check `keeper_frame` of `tests/fuzz`, driven by libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    (gooselake_fuzz::target("keeper_frame").expect("it is in the table").check)(input);
});
