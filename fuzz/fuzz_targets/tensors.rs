//! Weights: safetensors, and what PyTorch writes, by zip container or as one stream.
#![no_main]

use burn::store::bridge;
use libfuzzer_sys::fuzz_target;
use nsmc_bert::read_tensors;
use nsmc_fuzz::place;

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, content)) = bytes.split_first() else { return };
    let name = if kind == b's' { "model.safetensors" } else { "pytorch_model.bin" };
    let path = place().file(name, content);
    let Ok(tensors) = read_tensors(&path) else { return };
    for tensor in tensors.values() {
        if let Ok(data) = bridge::to_data(tensor) {
            assert_eq!(data.num_elements(), tensor.shape.iter().product::<usize>());
        }
    }
    place().assert_contained();
});
