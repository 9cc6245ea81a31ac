//! PEFT's `adapter_config.json` beside the weights of a fixture: what is loaded and saved is loaded
//! again.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nsmc_fuzz::model::{base, fixture};
use nsmc_fuzz::{place, write};

static WEIGHTS: LazyLock<Vec<u8>> = LazyLock::new(|| fixture("lora_qv/adapter_model.safetensors"));

fuzz_target!(|json: &[u8]| {
    let folder = place().empty();
    let (own, saved) = (folder.join("own"), folder.join("saved"));
    write(&own.join("adapter_config.json"), json);
    write(&own.join("adapter_model.safetensors"), &WEIGHTS);
    let mut model = base();
    if model.load_peft(&own, None).is_err() {
        return;
    }
    if model.save_peft("base", &saved).is_ok() {
        let mut back = base();
        back.load_peft(&saved, None).expect("what was saved is loaded");
        assert_eq!(back.state_dict(), model.state_dict());
    }
    place().assert_contained();
});
