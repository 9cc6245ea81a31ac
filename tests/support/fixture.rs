//! The parity fixtures: inputs, and what transformers, adapters and peft made of them.
//!
//! Included by the parity test of several crates. `PARITY_FIXTURES` names another folder of the same
//! layout, with other sizes and seeds.
#![allow(dead_code, reason = "each including test uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Bool, Device, Gradients, Int, Tensor, TensorData};
use nsmc_bert::{BertInput, state_dict};
use safetensors::{Dtype, SafeTensors};

/// How far parameters may be from the reference's after optimiser steps: weight decay moves them by
/// little.
pub(crate) const PARAMETER: f32 = 1e-5;

/// How far outputs and gradients may be from the reference's: larger models than this repository's
/// round more.
pub(crate) fn output() -> f32 {
    if others().is_some() { 1e-4 } else { 1e-5 }
}

fn others() -> Option<PathBuf> {
    std::env::var_os("PARITY_FIXTURES").map(PathBuf::from)
}

pub(crate) fn fixtures() -> PathBuf {
    others().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures"))
}

/// One case: `expected.safetensors` and `meta.json`.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) meta: serde_json::Value,
    tensors: BTreeMap<String, (Vec<usize>, Values)>,
}

enum Values {
    Float(Vec<f32>),
    Int(Vec<i64>),
}

/// One batch of a case, padded as transformers takes it.
pub(crate) struct Batch {
    pub(crate) width: usize,
    pub(crate) lengths: Vec<usize>,
    pub(crate) input_ids: Vec<u32>,
    pub(crate) token_type_ids: Vec<u32>,
    pub(crate) labels: Vec<i64>,
}

impl Case {
    pub(crate) fn read(name: &str) -> Self {
        let folder = fixtures().join(name);
        let read = |file: &str| {
            let path = folder.join(file);
            fs_err::read(&path).unwrap_or_else(|error| panic!("{error}"))
        };
        let meta = serde_json::from_slice(&read("meta.json")).expect("meta.json is JSON");
        let bytes = read("expected.safetensors");
        let tensors = SafeTensors::deserialize(&bytes)
            .expect("expected.safetensors is one")
            .iter()
            .map(|(name, view)| {
                let values = match view.dtype() {
                    Dtype::F32 => Values::Float(
                        view.data()
                            .chunks_exact(4)
                            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                            .collect(),
                    ),
                    Dtype::I64 => Values::Int(
                        view.data()
                            .chunks_exact(8)
                            .map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()))
                            .collect(),
                    ),
                    dtype => panic!("{name} is {dtype:?}"),
                };
                (name.to_owned(), (view.shape().to_vec(), values))
            })
            .collect();
        Self { name: name.into(), folder, meta, tensors }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    /// The names behind a prefix.
    pub(crate) fn names(&self, prefix: &str) -> Vec<&str> {
        self.tensors.keys().filter_map(|key| key.strip_prefix(prefix)).collect()
    }

    pub(crate) fn shape(&self, key: &str) -> &[usize] {
        &self.tensors.get(key).unwrap_or_else(|| panic!("{}: no {key}", self.name)).0
    }

    pub(crate) fn floats(&self, key: &str) -> &[f32] {
        match self.tensors.get(key) {
            Some((_, Values::Float(values))) => values,
            _ => panic!("{}: no floats {key}", self.name),
        }
    }

    fn ints(&self, key: &str) -> &[i64] {
        match self.tensors.get(key) {
            Some((_, Values::Int(values))) => values,
            _ => panic!("{}: no integers {key}", self.name),
        }
    }

    /// How many batches the case has.
    pub(crate) fn batches(&self) -> usize {
        self.names("input_ids.").len()
    }

    pub(crate) fn batch(&self, index: usize) -> Batch {
        let key = format!("input_ids.{index}");
        let &[_, width] = self.shape(&key) else { panic!("{key} is a matrix") };
        let ids = |key: &str| {
            let ids = self.ints(&format!("{key}.{index}")).iter();
            ids.map(|&id| u32::try_from(id).unwrap()).collect::<Vec<_>>()
        };
        let attention_mask = ids("attention_mask");
        let lengths = attention_mask.chunks(width).map(|row| {
            let length = row.iter().filter(|&&token| token == 1).count();
            assert!(row[..length].iter().all(|&token| token == 1), "padding is on the right");
            length
        });
        Batch {
            width,
            lengths: lengths.collect(),
            input_ids: ids("input_ids"),
            token_type_ids: ids("token_type_ids"),
            labels: self.ints(&format!("labels.{index}")).to_vec(),
        }
    }

    /// Parameters that must not be compared after Adam: their true gradient is 0.
    pub(crate) fn skip_after3(&self) -> Vec<String> {
        self.meta["skip_after3"].as_object().unwrap().keys().cloned().collect()
    }

    /// Compares a parameter after optimiser steps.
    ///
    /// Adam divides a gradient by its own size: one that lies within the noise floor of `f32` (which
    /// `meta.json` records) becomes a step of any size and sign. Such elements, a few in a thousand,
    /// say nothing and are left out; a gradient of exactly 0 is no noise and stays in.
    #[track_caller]
    pub(crate) fn assert_parameter(&self, prefix: &str, name: &str, actual: &[f32]) {
        let key = format!("{prefix}{name}");
        let floor = &self.meta["float32_vs_float64_max_abs_deviation"]["grad"];
        let floor = 10.0 * floor.as_f64().unwrap() as f32;
        let gradient = self.floats(&format!("grad.{name}"));
        let expected = self.floats(&key);
        assert_eq!(actual.len(), expected.len(), "{key}: number of values");
        let noise = |gradient: f32| gradient != 0.0 && gradient.abs() < floor;
        let (actual, expected): (Vec<f32>, Vec<f32>) = gradient
            .iter()
            .zip(actual.iter().zip(expected))
            .filter(|(gradient, _)| !noise(**gradient))
            .map(|(_, (actual, expected))| (*actual, *expected))
            .unzip();
        assert!(
            actual.len() * 100 > gradient.len() * 95,
            "{key}: too few values stand out of noise"
        );
        assert_close(&format!("{}: {key}", self.name), &actual, &expected, PARAMETER);
    }

    #[track_caller]
    pub(crate) fn assert_close(&self, key: &str, actual: &[f32], tolerance: f32) {
        assert_close(&format!("{}: {key}", self.name), actual, self.floats(key), tolerance);
    }
}

impl Batch {
    pub(crate) fn unpadded(&self, device: &Device) -> BertInput {
        let tokens = |ids: &[u32]| {
            let rows = ids.chunks(self.width).zip(&self.lengths);
            rows.flat_map(|(row, &length)| row[..length].to_vec()).collect::<Vec<_>>()
        };
        let (ids, types) = (tokens(&self.input_ids), tokens(&self.token_type_ids));
        BertInput::unpadded(&ids, &types, self.lengths.clone(), device)
    }

    /// Padded to `width`, which may be more or less than the fixture's own.
    pub(crate) fn padded(&self, width: usize, device: &Device) -> BertInput {
        let resize = |ids: &[u32]| {
            let rows = ids.chunks(self.width).map(|row| {
                let mut row = row.to_vec();
                row.resize(width, 0);
                row
            });
            rows.collect::<Vec<_>>().concat()
        };
        let (ids, types) = (resize(&self.input_ids), resize(&self.token_type_ids));
        BertInput::padded(&ids, &types, self.lengths.clone(), width, device)
    }

    /// The one review at `index`.
    pub(crate) fn one(&self, index: usize) -> Self {
        let row = index * self.width..(index + 1) * self.width;
        Self {
            width: self.width,
            lengths: vec![self.lengths[index]],
            input_ids: self.input_ids[row.clone()].to_vec(),
            token_type_ids: self.token_type_ids[row].to_vec(),
            labels: vec![self.labels[index]],
        }
    }

    pub(crate) fn labels(&self, device: &Device) -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(self.labels.clone(), [self.labels.len()]), device)
    }

    /// `[batch, width, ...]` values to those of its tokens, end to end.
    pub(crate) fn tokens_of(&self, values: &[f32]) -> Vec<f32> {
        let per_sequence = values.len() / self.lengths.len();
        let per_token = per_sequence / self.width;
        let rows = values.chunks(per_sequence).zip(&self.lengths);
        rows.flat_map(|(row, &length)| row[..length * per_token].to_vec()).collect()
    }
}

pub(crate) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("a float tensor is f32")
}

/// Compares every value; a NaN anywhere fails.
#[track_caller]
pub(crate) fn assert_close(what: &str, actual: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(actual.len(), expected.len(), "{what}: number of values");
    let worst = actual
        .iter()
        .zip(expected)
        .map(|(a, b)| if a.is_nan() || b.is_nan() { f32::INFINITY } else { (a - b).abs() })
        .enumerate()
        .max_by(|(_, a), (_, b)| a.total_cmp(b));
    if let Some((index, difference)) = worst {
        assert!(
            difference <= tolerance,
            "{what}: value {index} is {}, expected {}: off by {difference:e}, allowed {tolerance:e}",
            actual[index],
            expected[index]
        );
    }
}

/// The gradients of a module's parameters by their names in transformers; a parameter without one
/// is left out.
pub(crate) fn gradients<M: Module>(
    module: M,
    gradients: &Gradients,
) -> BTreeMap<String, TensorData> {
    let (module, without) = as_gradients(module, gradients);
    let mut named = state_dict(&module);
    for path in without {
        named.remove(&nsmc_bert::torch_name(&path));
    }
    named
}

/// The module with its gradients in the place of its parameters, and the paths of those that have
/// none (they are 0).
pub(crate) fn as_gradients<M: Module>(module: M, gradients: &Gradients) -> (M, Vec<String>) {
    struct IntoGradients<'a> {
        gradients: &'a Gradients,
        path: Vec<String>,
        without: Vec<String>,
    }
    impl ModuleMapper for IntoGradients<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let value = param.val();
            let gradient = value.grad(self.gradients).unwrap_or_else(|| {
                self.without.push(self.path.join("."));
                value.inner().zeros_like()
            });
            Param::initialized(param.id, gradient)
        }
        fn map_int<const D: usize>(
            &mut self,
            param: Param<Tensor<D, Int>>,
        ) -> Param<Tensor<D, Int>> {
            param
        }
        fn map_bool<const D: usize>(
            &mut self,
            param: Param<Tensor<D, Bool>>,
        ) -> Param<Tensor<D, Bool>> {
            param
        }
    }
    let mut mapper = IntoGradients { gradients, path: Vec::new(), without: Vec::new() };
    (module.map(&mut mapper), mapper.without)
}
