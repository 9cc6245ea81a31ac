//! AdapterHub's configuration files beside the weights of the fixtures: what is loaded and saved is
//! loaded again.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nsmc_fuzz::model::{base, fixture};
use nsmc_fuzz::{place, write};
use nsmc_peft::LoadOptions;

static ADAPTER: LazyLock<Vec<u8>> = LazyLock::new(|| fixture("adapter_inv/ko/adapter.safetensors"));
static FUSION: LazyLock<Vec<u8>> =
    LazyLock::new(|| fixture("fusion/ko,nsmc/model_adapter_fusion.safetensors"));
static HEAD: LazyLock<Vec<u8>> =
    LazyLock::new(|| fixture("flex_fusion/nsmc/model_head.safetensors"));
static CLASSIFIER: LazyLock<Vec<u8>> =
    LazyLock::new(|| fixture("adapter_inv/ko/model_head.safetensors"));

thread_local! {
    static WITH_ADAPTERS: nsmc_peft::PeftModel = {
        let mut model = base();
        for name in ["ko", "nsmc"] {
            let folder = nsmc_fuzz::repository("tests/fixtures/fusion").join(name);
            model.load_adapter(&folder, &LoadOptions::default()).expect("there are fixtures");
        }
        model
    };
}

// The first byte says which of the files the rest is.
fuzz_target!(|input: &[u8]| {
    let Some((&kind, json)) = input.split_first() else { return };
    let folder = place().empty();
    let (own, saved) = (folder.join("own"), folder.join("saved"));
    match kind {
        b'a' => {
            write(&own.join("adapter_config.json"), json);
            write(&own.join("adapter.safetensors"), &ADAPTER);
            let mut model = base();
            let Ok(name) = model.load_adapter(&own, &LoadOptions::default()) else { return };
            model.save_adapter(&name, &saved).expect("what was loaded can be saved");
            let mut back = base();
            let loaded = back.load_adapter(&saved, &LoadOptions::default());
            assert_eq!(loaded.expect("what was saved is loaded"), name);
            assert_eq!(back.state_dict(), model.state_dict());
        }
        b'f' => {
            write(&own.join("adapter_fusion_config.json"), json);
            write(&own.join("model_adapter_fusion.safetensors"), &FUSION);
            let mut model = WITH_ADAPTERS.with(Clone::clone);
            let Ok(name) = model.load_fusion(&own) else { return };
            model.save_fusion(&name, &saved).expect("what was loaded can be saved");
            let mut back = WITH_ADAPTERS.with(Clone::clone);
            assert_eq!(back.load_fusion(&saved).expect("what was saved is loaded"), name);
            assert_eq!(back.state_dict(), model.state_dict());
        }
        b'h' | b'c' => {
            write(&own.join("head_config.json"), json);
            write(
                &own.join("model_head.safetensors"),
                if kind == b'h' { &HEAD } else { &CLASSIFIER },
            );
            let mut model = base();
            let Ok(head) = model.load_head(&own) else { return };
            model.save_head(&saved).expect("what was loaded can be saved");
            let mut back = base();
            assert_eq!(back.load_head(&saved).expect("what was saved is loaded"), head);
            assert_eq!(back.state_dict(), model.state_dict());
        }
        _ => {
            write(&own.join("adapter_setup.json"), json);
            let mut model = WITH_ADAPTERS.with(Clone::clone);
            // Beside the setup, where it must not reach.
            write(&folder.join("head_config.json"), &fixture("adapter_inv/ko/head_config.json"));
            write(&folder.join("model_head.safetensors"), &CLASSIFIER);
            let before = model.state_dict();
            if model.load_setup(&own).is_ok() {
                assert_eq!(model.state_dict(), before, "weights of another folder");
            }
        }
    }
    place().assert_contained();
});
