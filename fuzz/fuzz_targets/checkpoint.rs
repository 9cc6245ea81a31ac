//! A run's checkpoint, `peft.json`, beside weights that fit none; and compositions as text.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nsmc_fuzz::model::{base, fixture};
use nsmc_fuzz::{place, write};
use nsmc_peft::Composition;

static WEIGHTS: LazyLock<Vec<u8>> =
    LazyLock::new(|| fixture("adapter_inv/ko/model_head.safetensors"));

fuzz_target!(|text: &str| {
    if let Ok(composition) = Composition::parse(text) {
        let back = Composition::parse(&composition.to_string());
        assert_eq!(back.expect("what is written is read"), composition);
        let json = Composition::from_json(&composition.to_json());
        assert_eq!(json.expect("what is written is read"), composition);
    }
    let folder = place().empty();
    write(&folder.join("peft.json"), text.as_bytes());
    write(&folder.join("model.safetensors"), &WEIGHTS);
    if let Ok(model) = base().load_checkpoint(&folder) {
        let saved = folder.join("saved");
        model.save_checkpoint(&saved).expect("what was loaded can be saved");
        let back = base().load_checkpoint(&saved).expect("what was saved is loaded");
        assert_eq!(back.state_dict(), model.state_dict());
    }
    place().assert_contained();
});
