//! An adapter's zip archive: nothing is written outside the folder it is unpacked into.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsmc_fuzz::model::base;
use nsmc_fuzz::place;
use nsmc_peft::LoadOptions;

fuzz_target!(|archive: &[u8]| {
    let path = place().file("adapter.zip", archive);
    let _ = base().load_adapter(&path, &LoadOptions::default());
    place().assert_contained();
    let files = fs_err::read_dir(path.parent().expect("the file is in a folder"));
    assert_eq!(files.expect("the folder can be read").count(), 1);
});
