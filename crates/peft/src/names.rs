use std::collections::BTreeMap;

use burn::store::{BurnToPyTorchAdapter, ModuleSnapshot, bridge};
use burn::tensor::TensorData;
use nsmc_bert::torch_name;

use crate::{LoraSite, PeftModel};

impl PeftModel {
    /// What the parameter at `path` in this module is called in the Python library that has its
    /// method: the name in PEFT if the model has LoRA, in AdapterHub's library otherwise.
    ///
    /// # Panics
    ///
    /// If the path names an adapter, a fusion or an update that the model does not have.
    pub fn library_name(&self, path: &str) -> String {
        let parts: Vec<&str> = path.split('.').collect();
        match parts.as_slice() {
            ["base", rest @ ..] => self.base_name(&torch_name(&rest.join("."))),
            ["head", layer, rest] => {
                let index = if *layer == "dense" { 1 } else { 4 };
                format!("heads.{}.{index}.{rest}", self.head_name)
            }
            ["adapters", "bottlenecks", adapter, rest @ ..] => {
                let adapter = &self.adapters.bottlenecks[index(adapter)];
                bottleneck_name(adapter.name(), adapter.config().ln_before, rest)
            }
            ["adapters", "fusions", fusion, "layer", layer, place, rest @ ..] => {
                let name = self.adapters.fusions[index(fusion)].name();
                format!("{}.adapter_fusion_layer.{name}.{}", site(layer, place), rest.join("."))
            }
            ["adapters", "lora", kind, update, rest @ ..] => {
                self.lora_name(kind, index(update), rest)
            }
            _ => path.to_owned(),
        }
    }

    /// The name in the library of the base's parameter of this name in transformers.
    pub(crate) fn base_name(&self, name: &str) -> String {
        if self.adapters.lora.is_none() {
            return name.to_owned();
        }
        match self.lora_layer_of(name) {
            Some(layer) => format!("base_model.model.{layer}.base_layer{}", &name[layer.len()..]),
            None => format!("base_model.model.{name}"),
        }
    }

    fn lora_name(&self, kind: &str, update: usize, rest: &[&str]) -> String {
        let lora = self.adapters.lora.as_ref().expect("a path of LoRA needs LoRA");
        let layer = match kind {
            "linear" => LoraSite::Linear(lora.linear[update].site()),
            _ => LoraSite::Embedding(lora.embeddings[update].site()),
        };
        let parameter = match rest[0] {
            "lora_a" => "lora_A.weight",
            "lora_b" => "lora_B.weight",
            "lora_embedding_a" => "lora_embedding_A",
            "lora_embedding_b" => "lora_embedding_B",
            other => other,
        };
        format!("base_model.model.{}.{parameter}", layer.name())
    }

    /// The parameters by their names in the library, in its layout.
    pub fn state_dict(&self) -> BTreeMap<String, TensorData> {
        self.library_tensors(|_| true)
    }

    /// The parameters whose names in the library `wanted` takes; no others are read from the device.
    pub(crate) fn library_tensors(
        &self,
        wanted: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, TensorData> {
        self.collect(None, Some(Box::new(BurnToPyTorchAdapter)), false)
            .into_iter()
            .filter_map(|tensor| {
                let name = self.library_name(&tensor.name);
                if !wanted(&name) {
                    return None;
                }
                let data = bridge::into_data(tensor).expect("a parameter can be read");
                let data = if is_transposed(&name) { transpose(&data) } else { data };
                Some((name, data))
            })
            .collect()
    }
}

/// PEFT keeps an embedding's `A` as `[rank, entries]`; a lookup wants its rows.
pub(crate) fn is_transposed(name: &str) -> bool {
    name.ends_with(".lora_embedding_A")
}

pub(crate) fn transpose(data: &TensorData) -> TensorData {
    let &[rows, columns] = data.shape().as_slice() else {
        panic!("{:?} is no matrix", data.shape())
    };
    let values: Vec<f32> = data.iter::<f32>().collect();
    let transposed = (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column)));
    let transposed: Vec<f32> =
        transposed.map(|(row, column)| values[row * columns + column]).collect();
    TensorData::new(transposed, [columns, rows])
}

fn bottleneck_name(adapter: &str, ln_before: bool, rest: &[&str]) -> String {
    match rest {
        ["invertible", network, layer, parameter] => {
            let index = if *layer == "down" { 0 } else { 2 };
            let network = network.to_uppercase();
            format!("bert.invertible_adapters.{adapter}.{network}.{index}.{parameter}")
        }
        ["layer", layer, place, module, parameter] => {
            let module = match *module {
                // A sequence in AdapterHub: an optional LayerNorm, then the projection.
                "adapter_down" if ln_before => "adapter_down.1",
                "adapter_down" | "adapter_norm_before" => "adapter_down.0",
                other => other,
            };
            let parameter = match *parameter {
                "gamma" => "weight",
                "beta" => "bias",
                other => other,
            };
            format!("{}.adapters.{adapter}.{module}.{parameter}", site(layer, place))
        }
        _ => rest.join("."),
    }
}

fn site(layer: &str, place: &str) -> String {
    let place = if place == "attention" { "attention.output" } else { "output" };
    format!("bert.encoder.layer.{layer}.{place}")
}

fn index(part: &str) -> usize {
    part.parse().expect("a list's path has an index")
}
